// SPDX-License-Identifier: GPL-2.0-only
/*
 * LUO's rules, tried in sessions of their own so that no trick played here can
 * be what carried the guest over, or what it failed by. The errnos are those of
 * kernel/liveupdate/luo_*.c and mm/memfd_luo.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/liveupdate.h>

#include "lost_fds.h"
#include "rules.h"

/* Closed before the kexec: the incoming kernel must not know it. */
#define CLOSED_SESSION "rules-closed"
/* Retrieved, and ended by FINISH. */
#define KEPT_SESSION "rules-kept"
/* Retrieved last, and closed without FINISH. */
#define ORPHAN_SESSION "orphan"

#define FILE_SIZE 4096
/* A call takes the lowest number that is free. */

enum {
	TOKEN_FILE = 1,
	TOKEN_OTHER,
	/* One for each, so that one that is taken by mistake does not stand in another's way. */
	TOKEN_CLOSED,
	TOKEN_PIPE,
	TOKEN_EVENT,
	TOKEN_NEVER_USED = 999,
};

static unsigned int rules_tried;

/* An outcome other than the expected one is told before the "not ok". */
void rule(const char *name, long expected, long seen)
{
	char key[32];

	rules_tried++;
	if (seen != expected) {
		snprintf(key, sizeof(key), "rule.%u.expected", rules_tried);
		fact(key, "%ld %s", expected, expected < 0 ? errno_name(expected) : "");
		snprintf(key, sizeof(key), "rule.%u.seen", rules_tried);
		fact(key, "%ld %s", seen, seen < 0 ? errno_name(seen) : "");
	}
	ktap_ok(seen == expected, name);
}

/* For calls that return a fd when they should not: 0 then, and no fd is left open. */
long closed(long fd)
{
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int new_file(u64 content)
{
	int fd = must(sys(memfd_create("rules", MFD_CLOEXEC)));

	must(sys(ftruncate(fd, FILE_SIZE)));
	must(sys(pwrite(fd, &content, sizeof(content), 0)));
	return fd;
}

/* 1, or 0 when the content is another. */
static long has_content(int fd, u64 content)
{
	u64 seen;

	must(sys(pread(fd, &seen, sizeof(seen), 0)));
	return seen == content;
}

static long write_at(int fd, off_t offset)
{
	return sys(pwrite(fd, "x", 1, offset));
}

static void rules_of_names(int luo_fd)
{
	char too_long[LIVEUPDATE_SESSION_NAME_LENGTH + 1];

	memset(too_long, 'n', sizeof(too_long));
	too_long[sizeof(too_long) - 1] = '\0';

	rule("second_open_of_device", -EBUSY, closed(luo_open()));
	rule("session_name_in_use", -EEXIST, closed(luo_create_session(luo_fd, CLOSED_SESSION)));
	rule("session_name_empty", -EINVAL, closed(luo_create_session(luo_fd, "")));
	rule("session_name_too_long", -EINVAL, closed(luo_create_session(luo_fd, too_long)));
	rule("retrieve_unknown_session", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, "no-such-session")));
	rule("retrieve_outgoing_session", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, CLOSED_SESSION)));
}

static void rules_of_preserve(int luo_fd, int session, int file, int other)
{
	int second = must(luo_create_session(luo_fd, "rules-second"));
	int event = must(sys(eventfd(0, EFD_CLOEXEC)));
	int closed_fd = must(sys(dup(other)));
	int pipe_fds[2];

	must(sys(pipe2(pipe_fds, O_CLOEXEC)));
	close(closed_fd);

	rule("token_in_use", -EEXIST, luo_preserve_fd(session, other, TOKEN_FILE));
	rule("file_preserved_twice", -EBUSY, luo_preserve_fd(session, file, TOKEN_OTHER));
	rule("file_in_two_sessions", -EBUSY, luo_preserve_fd(second, file, TOKEN_FILE));
	rule("preserve_closed_fd", -EBADF, luo_preserve_fd(session, closed_fd, TOKEN_CLOSED));
	rule("preserve_pipe", -ENOENT, luo_preserve_fd(session, pipe_fds[0], TOKEN_PIPE));
	rule("preserve_eventfd", -ENOENT, luo_preserve_fd(session, event, TOKEN_EVENT));

	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(event);
	close(second);
}

/* LUO has its own reference to the file; only the session's fd has to stay open. */
static void keep_for_incoming(int luo_fd, const char *session_name, u64 content)
{
	int session = must(luo_create_session(luo_fd, session_name));
	int file = new_file(content);

	must(luo_preserve_fd(session, file, TOKEN_FILE));
	close(file);
}

void rules_outgoing(int luo_fd, u64 nonce)
{
	int session = must(luo_create_session(luo_fd, CLOSED_SESSION));
	int file = new_file(nonce), other = new_file(nonce);

	must(luo_preserve_fd(session, file, TOKEN_FILE));
	rules_of_names(luo_fd);
	rule("retrieve_fd_of_outgoing_session", -EINVAL,
	     closed(luo_retrieve_fd(session, TOKEN_FILE)));
	rule("finish_outgoing_session", -EINVAL, luo_finish(session));
	rule("write_inside_preserved_memfd", 1, write_at(file, FILE_SIZE - 1));
	rule("write_past_end_of_preserved_memfd", -EPERM, write_at(file, FILE_SIZE));
	rule("resize_preserved_memfd", -EPERM, sys(ftruncate(file, 2 * FILE_SIZE)));
	rule("shrink_preserved_memfd", -EPERM, sys(ftruncate(file, FILE_SIZE / 2)));
	rule("empty_preserved_memfd", -EPERM, sys(ftruncate(file, 0)));
	rule("content_of_preserved_memfd", 1, has_content(file, nonce));
	rule("punch_preserved_memfd", -EPERM,
	     sys(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, FILE_SIZE)));
	rule("allocate_in_preserved_memfd", -EPERM, sys(fallocate(file, 0, 0, FILE_SIZE)));
	rules_of_preserve(luo_fd, session, file, other);
	rule("no_fd_left", 0, lost_fds());
	close(session);
	rule("resize_memfd_of_closed_session", 0, sys(ftruncate(file, 2 * FILE_SIZE)));
	/* An abort leaves no mark. */
	session = must(luo_create_session(luo_fd, CLOSED_SESSION));
	rule("preserve_after_abort", 0, luo_preserve_fd(session, file, TOKEN_FILE));
	close(session);
	close(other);
	close(file);

	keep_for_incoming(luo_fd, KEPT_SESSION, nonce);
	keep_for_incoming(luo_fd, ORPHAN_SESSION, ~nonce);
}

static long same_inode(int a, int b)
{
	struct stat stat_a, stat_b;

	must(sys(fstat(a, &stat_a)));
	must(sys(fstat(b, &stat_b)));
	return stat_a.st_dev == stat_b.st_dev && stat_a.st_ino == stat_b.st_ino;
}

void skip_all(const char * const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		ktap_skip(names[i], "its session was not carried over");
}

static void rules_of_kept_session(int luo_fd, u64 nonce)
{
	static const char * const names[] = {
		"retrieve_session_twice", "retrieve_unknown_token", "preserve_in_incoming_session",
		"retrieve_token_twice_is_same_file", "preserve_retrieved_file", "finish_session",
		"finish_twice", "retrieve_fd_after_finish", "preserve_finished_file",
	};
	int session = luo_retrieve_session(luo_fd, KEPT_SESSION);
	int file, again, other, next;

	if (session < 0) {
		skip_all(names, ARRAY_SIZE(names));
		return;
	}
	next = must(luo_create_session(luo_fd, "rules-next"));

	file = must(luo_retrieve_fd(session, TOKEN_FILE));
	rule("retrieve_session_twice", -EINVAL, closed(luo_retrieve_session(luo_fd, KEPT_SESSION)));
	rule("retrieve_unknown_token", -ENOENT, closed(luo_retrieve_fd(session, TOKEN_NEVER_USED)));
	other = new_file(nonce);
	rule("preserve_in_incoming_session", -EINVAL,
	     luo_preserve_fd(session, other, TOKEN_NEVER_USED));
	again = luo_retrieve_fd(session, TOKEN_FILE);
	rule("retrieve_token_twice_is_same_file", 1, again < 0 ? again : same_inode(again, file));
	/* As long as LUO has it, nobody else may preserve it. */
	rule("preserve_retrieved_file", -EBUSY, luo_preserve_fd(next, file, TOKEN_FILE));
	rule("finish_session", 0, luo_finish(session));
	rule("finish_twice", 0, luo_finish(session));
	rule("retrieve_fd_after_finish", -ENOENT, closed(luo_retrieve_fd(session, TOKEN_FILE)));
	rule("preserve_finished_file", 0, luo_preserve_fd(next, file, TOKEN_OTHER));

	close(next);
	if (again >= 0)
		close(again);
	close(other);
	close(file);
	close(session);
}

/* Closing a retrieved session is a FINISH too: the file lives on, the session is gone. */
static void rules_of_orphan(int luo_fd, u64 nonce)
{
	static const char * const names[] = {
		"orphan_content", "orphan_content_after_close", "orphan_session_gone_after_close",
	};
	int session = luo_retrieve_session(luo_fd, ORPHAN_SESSION);
	int file;

	if (session < 0) {
		skip_all(names, ARRAY_SIZE(names));
		return;
	}

	file = must(luo_retrieve_fd(session, TOKEN_FILE));
	rule("orphan_content", 1, has_content(file, ~nonce));
	close(session);
	rule("orphan_content_after_close", 1, has_content(file, ~nonce));
	rule("orphan_session_gone_after_close", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, ORPHAN_SESSION)));
	close(file);
}

void rules_incoming(int luo_fd, u64 nonce)
{
	rule("second_open_of_device", -EBUSY, closed(luo_open()));
	rule("retrieve_unknown_session", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, "no-such-session")));
	rule("retrieve_session_closed_before_kexec", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, CLOSED_SESSION)));
	rules_of_kept_session(luo_fd, nonce);
	rules_of_orphan(luo_fd, nonce);
	rule("no_fd_left", 0, lost_fds());
}
