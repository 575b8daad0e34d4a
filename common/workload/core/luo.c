// SPDX-License-Identifier: GPL-2.0-only
/*
 * The Live Update Orchestrator's ioctls. A session's fd keeps what is in it
 * preserved: closing it before the kexec takes everything back, so whoever
 * holds it has to live until reboot().
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <syslog.h>
#include <unistd.h>

#include <linux/liveupdate.h>

#include "workload.h"

#define LUO_DEVICE "/dev/liveupdate"

#define OUT_FDT "/sys/kernel/debug/kho/out/fdt"
#define FDT_MAX 1024

int luo_open(void)
{
	return sys(open(LUO_DEVICE, O_RDWR | O_CLOEXEC));
}

/*
 * LUO's last warning or error in the kernel's log: a record of /dev/kmsg is
 * "LEVEL,NUMBER,...;TEXT\n" and more lines.
 */
static const char *complaint(void)
{
	static char said[256] = "LUO says nothing of it";
	char record[8192], *text;
	ssize_t length;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return said;
	/* EPIPE: records were written over, and reading goes on with the oldest that is left. */
	while ((length = read(fd, record, sizeof(record) - 1)) > 0 ||
	       (length < 0 && errno == EPIPE)) {
		record[length > 0 ? length : 0] = '\0';
		text = strchr(record, ';');
		if (text && LOG_PRI(atoi(record)) <= LOG_WARNING &&
		    !strncmp(text + 1, "luo", 3))
			snprintf(said, sizeof(said), "%.*s", (int)strcspn(text + 1, "\n"), text + 1);
	}
	close(fd);
	return said;
}

int luo_must_open(void)
{
	int fd = luo_open();

	if (fd < 0)
		bail("%s: %s (%s)", LUO_DEVICE, errno_name(fd), complaint());
	return fd;
}

/* A name that is too long fills the field, so that the kernel sees no end of it. */
static void copy_name(u8 *to, const char *name)
{
	memset(to, 0, LIVEUPDATE_SESSION_NAME_LENGTH);
	memcpy(to, name, strnlen(name, LIVEUPDATE_SESSION_NAME_LENGTH));
}

int luo_create_session(int luo_fd, const char *name)
{
	struct liveupdate_ioctl_create_session arg = { .size = sizeof(arg) };
	int ret;

	copy_name(arg.name, name);
	ret = sys(ioctl(luo_fd, LIVEUPDATE_IOCTL_CREATE_SESSION, &arg));
	return ret < 0 ? ret : arg.fd;
}

int luo_retrieve_session(int luo_fd, const char *name)
{
	struct liveupdate_ioctl_retrieve_session arg = { .size = sizeof(arg) };
	int ret;

	copy_name(arg.name, name);
	ret = sys(ioctl(luo_fd, LIVEUPDATE_IOCTL_RETRIEVE_SESSION, &arg));
	return ret < 0 ? ret : arg.fd;
}

int luo_preserve_fd(int session_fd, int fd, u64 token)
{
	struct liveupdate_session_preserve_fd arg = {
		.size = sizeof(arg),
		.fd = fd,
		.token = token,
	};

	return sys(ioctl(session_fd, LIVEUPDATE_SESSION_PRESERVE_FD, &arg));
}

int luo_retrieve_fd(int session_fd, u64 token)
{
	struct liveupdate_session_retrieve_fd arg = {
		.size = sizeof(arg),
		.token = token,
	};
	int ret;

	ret = sys(ioctl(session_fd, LIVEUPDATE_SESSION_RETRIEVE_FD, &arg));
	return ret < 0 ? ret : arg.fd;
}

int luo_finish(int session_fd)
{
	struct liveupdate_session_finish arg = { .size = sizeof(arg) };

	return sys(ioctl(session_fd, LIVEUPDATE_SESSION_FINISH, &arg));
}

/*
 * KHO's tree to hand over, where its root is to be found. A kernel that came by
 * kexec itself has no such file (kho_init(), Linux 7.3).
 */
void say_kho_tree(void)
{
	char hex[2 * FDT_MAX + 1] = "";
	unsigned char fdt[FDT_MAX];
	ssize_t len;
	int fd;

	fd = open(OUT_FDT, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	len = must(sys(read(fd, fdt, sizeof(fdt))));
	close(fd);
	for (ssize_t i = 0; i < len; i++)
		sprintf(hex + 2 * i, "%02x", fdt[i]);
	fact("kho.fdt", "%s", hex);
}

/* An ioctl with a copy of its argument that the kernel can read, and not write its answer to. */
int ioctl_read_only(int fd, unsigned long request, const void *arg, size_t size)
{
	void *copy = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret;

	must_be(copy != MAP_FAILED, "%s", errno_name(-errno));
	memcpy(copy, arg, size);
	must(sys(mprotect(copy, size, PROT_READ)));
	ret = sys(ioctl(fd, request, copy));
	must(sys(munmap(copy, size)));
	return ret;
}
