// SPDX-License-Identifier: GPL-2.0-only
/*
 * LUO's rules. The errnos are those of kernel/liveupdate/luo_*.c and
 * mm/memfd_luo.c. The outgoing rules are tried in a session of their own,
 * "rules", which is closed before the kexec: closing takes everything back,
 * and the incoming kernel must not know it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/liveupdate.h>

#include "rules.h"

#define RULES_SESSION "rules"
/* Left alone in the outgoing kernel; see rules_finished(). */
#define ORPHAN_SESSION "orphan"

#define FILE_SIZE 4096

enum {
	TOKEN_FILE = 1,
	TOKEN_OTHER,
	TOKEN_NEVER_USED = 999,
};

static unsigned int rules_tried;

/* An outcome other than the expected one is told before the "not ok". */
static void rule(const char *name, long expected, long seen)
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
static long closed(long fd)
{
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int new_file(const char *name)
{
	int fd = must(sys(memfd_create(name, MFD_CLOEXEC)));

	must(sys(ftruncate(fd, FILE_SIZE)));
	return fd;
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
	rule("session_name_in_use", -EEXIST, closed(luo_create_session(luo_fd, RULES_SESSION)));
	rule("session_name_empty", -EINVAL, closed(luo_create_session(luo_fd, "")));
	rule("session_name_too_long", -EINVAL, closed(luo_create_session(luo_fd, too_long)));
	rule("retrieve_unknown_session", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, "no-such-session")));
	rule("retrieve_outgoing_session", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, RULES_SESSION)));
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
	rule("preserve_closed_fd", -EBADF, luo_preserve_fd(session, closed_fd, TOKEN_OTHER));
	rule("preserve_pipe", -ENOENT, luo_preserve_fd(session, pipe_fds[0], TOKEN_OTHER));
	rule("preserve_eventfd", -ENOENT, luo_preserve_fd(session, event, TOKEN_OTHER));

	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(event);
	close(second);
}

void rules_outgoing(int luo_fd, u64 nonce)
{
	int session = must(luo_create_session(luo_fd, RULES_SESSION));
	int orphan = must(luo_create_session(luo_fd, ORPHAN_SESSION));
	int file = new_file("rules-file"), other = new_file("rules-other");
	int orphan_file = new_file("orphan-file");

	must(luo_preserve_fd(session, file, TOKEN_FILE));
	rules_of_names(luo_fd);
	rules_of_preserve(luo_fd, session, file, other);

	rule("retrieve_fd_of_outgoing_session", -EINVAL,
	     closed(luo_retrieve_fd(session, TOKEN_FILE)));
	rule("finish_outgoing_session", -EINVAL, luo_finish(session));
	rule("write_inside_preserved_memfd", 1, write_at(file, FILE_SIZE - 1));
	rule("write_past_end_of_preserved_memfd", -EPERM, write_at(file, FILE_SIZE));
	rule("resize_preserved_memfd", -EPERM, sys(ftruncate(file, 2 * FILE_SIZE)));
	rule("punch_preserved_memfd", -EPERM,
	     sys(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, FILE_SIZE)));
	close(session);
	rule("resize_memfd_of_closed_session", 0, sys(ftruncate(file, 2 * FILE_SIZE)));

	/* The orphan's session fd stays open, LUO has its own reference to the file. */
	must(sys(pwrite(orphan_file, &nonce, sizeof(nonce), 0)));
	must(luo_preserve_fd(orphan, orphan_file, TOKEN_FILE));
	close(orphan_file);
	close(other);
	close(file);
}

static long same_inode(int a, int b)
{
	struct stat stat_a, stat_b;

	must(sys(fstat(a, &stat_a)));
	must(sys(fstat(b, &stat_b)));
	return stat_a.st_dev == stat_b.st_dev && stat_a.st_ino == stat_b.st_ino;
}

/*
 * The rules of the session the guest lives in are tried while it runs. Without
 * such a session (@session_fd < 0, in controls) they cannot be.
 */
void rules_incoming(int luo_fd, int session_fd, const char *session_name, int state_fd,
		    u64 state_token)
{
	int again, file;

	rule("second_open_of_device", -EBUSY, closed(luo_open()));
	rule("retrieve_unknown_session", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, "no-such-session")));
	rule("retrieve_session_closed_before_kexec", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, RULES_SESSION)));

	if (session_fd < 0 || state_fd < 0) {
		ktap_skip("retrieve_session_twice", "no session");
		ktap_skip("retrieve_unknown_token", "no session");
		ktap_skip("preserve_in_incoming_session", "no session");
		ktap_skip("retrieve_token_twice_is_same_file", "no session");
		return;
	}

	rule("retrieve_session_twice", -EINVAL,
	     closed(luo_retrieve_session(luo_fd, session_name)));
	rule("retrieve_unknown_token", -ENOENT,
	     closed(luo_retrieve_fd(session_fd, TOKEN_NEVER_USED)));

	file = new_file("rules-file");
	rule("preserve_in_incoming_session", -EINVAL,
	     luo_preserve_fd(session_fd, file, TOKEN_NEVER_USED));
	close(file);

	again = luo_retrieve_fd(session_fd, state_token);
	rule("retrieve_token_twice_is_same_file", 1,
	     again < 0 ? again : same_inode(again, state_fd));
	if (again >= 0)
		close(again);
}

/*
 * After FINISH of the guest's session. The orphan is retrieved only now, and
 * its session is closed without FINISH: that is a FINISH too, so the file
 * lives on and the session is gone.
 */
void rules_finished(int luo_fd, int session_fd, u64 state_token, u64 nonce)
{
	int orphan, file;
	u64 content = 0;

	if (session_fd >= 0) {
		rule("finish_twice", 0, luo_finish(session_fd));
		rule("retrieve_fd_after_finish", -ENOENT,
		     closed(luo_retrieve_fd(session_fd, state_token)));
	} else {
		ktap_skip("finish_twice", "not finished");
		ktap_skip("retrieve_fd_after_finish", "not finished");
	}

	orphan = luo_retrieve_session(luo_fd, ORPHAN_SESSION);
	rule("orphan_session_is_there", 1, orphan < 0 ? orphan : 1);
	file = orphan < 0 ? orphan : luo_retrieve_fd(orphan, TOKEN_FILE);
	if (file < 0) {
		ktap_skip("orphan_content", "no orphan");
		ktap_skip("orphan_content_after_close", "no orphan");
		ktap_skip("orphan_session_gone_after_close", "no orphan");
		return;
	}

	must(sys(pread(file, &content, sizeof(content), 0)));
	rule("orphan_content", 1, content == nonce);
	close(orphan);
	content = 0;
	must(sys(pread(file, &content, sizeof(content), 0)));
	rule("orphan_content_after_close", 1, content == nonce);
	rule("orphan_session_gone_after_close", -ENOENT,
	     closed(luo_retrieve_session(luo_fd, ORPHAN_SESSION)));
	close(file);
}
