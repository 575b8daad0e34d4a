// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "qemu_process.h"
#include "take.h"

/* Less than the host bears nothing to be said. */
#define EXEC_MS 20000
#define MOST_FILES 256
/* handover.c's */
#define OURS "/memfd:handover"

/* Number of the file with the CPR state in the environment of the process; 0: not yet there. */
static int state_number(pid_t pid)
{
	static const char name[] = QEMU_CPR_STATE "=";
	char path[64], text[4096];
	int fd, number = 0;
	ssize_t len;

	sprintf(path, "/proc/%d/environ", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	len = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (len < 0)
		len = 0;
	text[len] = '\0';
	for (char *at = text; at < text + len; at += strlen(at) + 1)
		if (!strncmp(at, name, strlen(name)))
			number = atoi(at + strlen(name));
	return number;
}

static int take_fd(int pidfd, int number)
{
	return sys(syscall(SYS_pidfd_getfd, pidfd, number, 0));
}

static int open_process(pid_t pid)
{
	return must(sys(syscall(SYS_pidfd_open, pid, 0)));
}

#define MEMFD "/memfd:"

/* What an open file is to the kernel; false when there is none of that number any more. */
static bool link_of(pid_t pid, int number, char *link, size_t size)
{
	char path[64];
	ssize_t len;

	sprintf(path, "/proc/%d/fd/%d", pid, number);
	len = readlink(path, link, size - 1);
	link[len > 0 ? len : 0] = '\0';
	return len > 0;
}

/* Numbers of QEMU's own memfds, from the lowest on; the one that it got from us is none. */
size_t list_memfds(pid_t qemu, int *numbers, size_t most)
{
	size_t count = 0;
	char link[256];

	for (int number = 0; number < MOST_FILES; number++) {
		if (!link_of(qemu, number, link, sizeof(link)) ||
		    strncmp(link, MEMFD, strlen(MEMFD)) || !strncmp(link, OURS, strlen(OURS)))
			continue;
		must_be(count < most, "%zu memfds", count);
		numbers[count++] = number;
	}
	return count;
}

int take_file(pid_t qemu, int number)
{
	int pidfd = open_process(qemu), fd = must(take_fd(pidfd, number));

	close(pidfd);
	return fd;
}

/* What it was, and 0; -ETIMEDOUT when QEMU has not executed the program. */
int take_state(pid_t qemu, struct cpr_state *state)
{
	struct deadline deadline = deadline_in_ms(EXEC_MS);
	int number, pidfd, fd;

	while (!(number = state_number(qemu))) {
		if (deadline_passed(deadline))
			return -ETIMEDOUT;
		poll_pause();
	}
	pidfd = open_process(qemu);
	fd = must(take_fd(pidfd, number));
	state->size = must(sys(pread(fd, state->bytes, sizeof(state->bytes), 0)));
	must_be(state->size < sizeof(state->bytes), "%zu bytes", state->size);
	close(fd);
	close(pidfd);
	return 0;
}

static enum file_kind kind_of(int fd, const char *name)
{
	static const struct {
		const char *begin;
		enum file_kind kind;
	} kinds[] = {
		{ MEMFD, FILE_MEMFD },
		{ "anon_inode:[eventfd]", FILE_EVENTFD },
		{ "/dev/iommu", FILE_IOMMUFD },
		{ "/dev/vfio/devices/", FILE_DEVICE },
	};
	char link[256];

	must_be(link_of(getpid(), fd, link, sizeof(link)), "descriptor %d", fd);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strncmp(link, kinds[i].begin, strlen(kinds[i].begin)))
			return kinds[i].kind;
	bail("QEMU's descriptor %s is %s, which nobody can hand over", name, link);
}

/* All that its state names, and what each is. */
void take_files(pid_t qemu, struct handover *handover, int *files)
{
	int pidfd = open_process(qemu);

	for (u32 i = 0; i < handover->state.nr_fds; i++) {
		const struct cpr_fd *fd = &handover->state.fds[i];

		files[i] = must(take_fd(pidfd, fd->number));
		handover->kind[i] = kind_of(files[i], fd->name);
	}
	close(pidfd);
}
