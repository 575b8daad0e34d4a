// SPDX-License-Identifier: GPL-2.0-only
/*
 * How the ioctls take their arguments (kernel/liveupdate/luo_core.c,
 * luo_session.c, Linux 7.3): sizes, reserved fields, memory that cannot be
 * written to, no free fd. After each refusal the same thing works.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/liveupdate.h>

#include "lost_fds.h"
#include "rules.h"

#define OUTGOING_SESSION "rules-ioctl"
/* As long as a name may be. */
#define CARRIED_SESSION "rules-ioctl-incoming-0123456789-0123456789-0123456789-012345678"
/* The beginning of another one is no name. */
#define CARRIED_PREFIX "rules-ioctl-incoming"
#define TOKEN 7
/* Who retrieves the file of that session: its owner, as of any memfd that is made. */
#define USER 1234

static int session_ioctl(int fd, unsigned long request, void *arg)
{
	return sys(ioctl(fd, request, arg));
}

/* 1 when the session says that it is called so. */
static long has_name(int session, const char *name)
{
	struct liveupdate_session_get_name arg = { .size = sizeof(arg) };
	int ret = session_ioctl(session, LIVEUPDATE_SESSION_GET_NAME, &arg);

	return ret < 0 ? ret : !strncmp((char *)arg.name, name, sizeof(arg.name));
}

/* 1 when no program that the holder starts inherits it. */
static long closes_on_exec(int fd)
{
	int flags = sys(fcntl(fd, F_GETFD));

	return flags < 0 ? flags : !!(flags & FD_CLOEXEC);
}

/* Who opens the device can take any session over; it is for root to hand sessions on. */
static void rule_of_device(int luo_fd)
{
	struct stat stat;

	must(sys(fstat(luo_fd, &stat)));
	rule("device_for_root_only", 0600, stat.st_uid ? -EPERM : (long)(stat.st_mode & 07777));
}

static void rules_of_size(int session, int file)
{
	struct {
		struct liveupdate_session_preserve_fd arg;
		u64 more;
	} large = { .arg = { .size = sizeof(large), .fd = file, .token = TOKEN }, .more = 1 };
	struct liveupdate_session_preserve_fd small = { .size = 8, .fd = file, .token = TOKEN };
	struct liveupdate_session_get_name name = { .size = sizeof(name), .reserved = 1 };

	rule("argument_too_small", -EINVAL,
	     session_ioctl(session, LIVEUPDATE_SESSION_PRESERVE_FD, &small));
	rule("argument_of_the_future", -E2BIG,
	     session_ioctl(session, LIVEUPDATE_SESSION_PRESERVE_FD, &large));
	rule("reserved_field", -EINVAL,
	     session_ioctl(session, LIVEUPDATE_SESSION_GET_NAME, &name));
	rule("unknown_ioctl", -EINVAL,
	     session_ioctl(session, _IO(LIVEUPDATE_IOCTL_TYPE, 0x4f), &name));
	large.more = 0;
	rule("argument_of_the_future_unused", 0,
	     session_ioctl(session, LIVEUPDATE_SESSION_PRESERVE_FD, &large));
}

static void rules_of_files(int session)
{
	int file = must(sys(open("/tmp/linked", O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
	int device = must(sys(open("/dev/null", O_RDWR | O_CLOEXEC)));

	rule("preserve_linked_tmpfs_file", -ENOENT, luo_preserve_fd(session, file, TOKEN + 1));
	rule("preserve_device", -ENOENT, luo_preserve_fd(session, device, TOKEN + 1));
	close(device);
	close(file);
	unlink("/tmp/linked");
}

void rules_ioctl_outgoing(int luo_fd)
{
	struct liveupdate_ioctl_create_session create = {
		.size = sizeof(create), .name = OUTGOING_SESSION,
	};
	int session, file = must(sys(memfd_create("rules-ioctl", MFD_CLOEXEC)));

	must(sys(ftruncate(file, 4096)));
	rule_of_device(luo_fd);
	rule("create_to_read_only_memory", -EFAULT,
	     ioctl_read_only(luo_fd, LIVEUPDATE_IOCTL_CREATE_SESSION, &create, sizeof(create)));
	/* The name is free again. */
	session = luo_create_session(luo_fd, OUTGOING_SESSION);
	rule("create_after_fault", 0, session < 0 ? session : 0);
	rule("session_name", 1, has_name(session, OUTGOING_SESSION));
	rule("session_closes_on_exec", 1, closes_on_exec(session));
	rules_of_files(session);
	rules_of_size(session, file);
	/* No image is loaded: a reboot that is refused serialises nothing, and locks nothing. */
	rule("reboot_without_image", -EINVAL, kexec_start());
	rule("session_name_after_reboot", 1, has_name(session, OUTGOING_SESSION));
	close(session);
	rule("no_fd_left_by_ioctls", 0, lost_fds());
	must(luo_preserve_fd(must(luo_create_session(luo_fd, CARRIED_SESSION)), file, TOKEN));
	close(file);
}

static u64 shmem_kb(void)
{
	refresh_counters();
	return meminfo_kb("Shmem");
}

static long has_owner(int fd, uid_t uid)
{
	struct stat stat;

	return fd < 0 ? fd : !sys(fstat(fd, &stat)) && stat.st_uid == uid && stat.st_gid == uid;
}

static const char * const incoming_names[] = {
	"session_name", "session_closes_on_exec", "retrieve_without_free_fd",
	"retrieve_to_read_only_memory", "retrieve_after_fault", "retrieved_by_its_owner",
	"finish_reserved_field", "finish_ioctl_session", "no_fd_left_by_ioctls",
	"no_memory_left_by_ioctls",
};

void rules_ioctl_incoming(int luo_fd)
{
	struct liveupdate_session_retrieve_fd retrieve = {
		.size = sizeof(retrieve), .token = TOKEN,
	};
	struct liveupdate_session_finish finish = { .size = sizeof(finish), .reserved = 1 };
	u64 before = shmem_kb();
	struct rlimit limit, none;
	int session, file;

	rule_of_device(luo_fd);
	rule("retrieve_by_prefix", -ENOENT, closed(luo_retrieve_session(luo_fd, CARRIED_PREFIX)));
	session = luo_retrieve_session(luo_fd, CARRIED_SESSION);
	if (session < 0) {
		skip_all(incoming_names, ARRAY_SIZE(incoming_names));
		return;
	}
	rule("session_name", 1, has_name(session, CARRIED_SESSION));
	rule("session_closes_on_exec", 1, closes_on_exec(session));
	must(sys(getrlimit(RLIMIT_NOFILE, &limit)));
	none = (struct rlimit){ .rlim_cur = 0, .rlim_max = limit.rlim_max };
	must(sys(setrlimit(RLIMIT_NOFILE, &none)));
	setfsgid(USER);
	setfsuid(USER);
	rule("retrieve_without_free_fd", -EMFILE, luo_retrieve_fd(session, TOKEN));
	must(sys(setrlimit(RLIMIT_NOFILE, &limit)));
	rule("retrieve_to_read_only_memory", -EFAULT,
	     ioctl_read_only(session, LIVEUPDATE_SESSION_RETRIEVE_FD, &retrieve,
			     sizeof(retrieve)));
	file = luo_retrieve_fd(session, TOKEN);
	setfsuid(0);
	setfsgid(0);
	rule("retrieve_after_fault", 0, file < 0 ? file : 0);
	rule("retrieved_by_its_owner", 1, has_owner(file, USER));
	closed(file);
	rule("finish_reserved_field", -EINVAL,
	     session_ioctl(session, LIVEUPDATE_SESSION_FINISH, &finish));
	rule("finish_ioctl_session", 0, luo_finish(session));
	close(session);
	rule("no_fd_left_by_ioctls", 0, lost_fds());
	/* The file is gone as well, whose retrieve failed twice before it was retrieved and closed. */
	rule("no_memory_left_by_ioctls", 0, shmem_kb() - before);
}
