// SPDX-License-Identifier: GPL-2.0-only
/*
 * A session's life, once for each of its calls: the call is cut, then made
 * again, and everything is closed. A file has pages that were written to and
 * pages that are not there yet.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pattern.h"
#include "point.h"

#define TOKEN 7
#define PAGES 8
#define WRITTEN 4
#define SIZE (PAGES * PAGE_SIZE)

static void fill(u64 *page, unsigned int number)
{
	memset(page, 0, PAGE_SIZE);
	if (number < WRITTEN)
		pattern_page(page, param_nonce(), number);
}

static int make_file(void)
{
	int file = must(sys(memfd_create("sweep", MFD_CLOEXEC)));
	u64 page[PAGE_SIZE / sizeof(u64)];

	must(sys(ftruncate(file, SIZE)));
	for (unsigned int i = 0; i < WRITTEN; i++) {
		fill(page, i);
		must(sys(pwrite(file, page, PAGE_SIZE, i * PAGE_SIZE)));
	}
	return file;
}

/* 0, -errno, or -EIO where the file does not hold what was written. */
static int look_at_content(int file)
{
	u64 seen[PAGE_SIZE / sizeof(u64)], due[PAGE_SIZE / sizeof(u64)];

	for (unsigned int i = 0; i < PAGES; i++) {
		int got = sys(pread(file, seen, PAGE_SIZE, i * PAGE_SIZE));

		if (got < 0)
			return got;
		fill(due, i);
		if (got != PAGE_SIZE || memcmp(seen, due, PAGE_SIZE))
			return -EIO;
	}
	return 0;
}

/* A file that is preserved has a size that cannot be changed. */
static int resize(int file)
{
	int ret = sys(ftruncate(file, SIZE + PAGE_SIZE));

	return ret < 0 ? ret : sys(ftruncate(file, SIZE));
}

static void create_session(struct point *point, int luo_fd)
{
	int session;

	fail_nth_arm(point->n);
	session = point_cut(point, luo_create_session(luo_fd, "sweep"));
	if (session < 0) {
		session = luo_create_session(luo_fd, "sweep");
		point_step(point, "again", session);
	}
	if (session >= 0)
		close(session);
}

static void preserve_fd(struct point *point, int luo_fd)
{
	int session = must(luo_create_session(luo_fd, "sweep")), file = make_file();
	int ret;

	fail_nth_arm(point->n);
	ret = point_cut(point, luo_preserve_fd(session, file, TOKEN));
	if (ret < 0) {
		point_step(point, "resize", resize(file));
		point_step(point, "again", luo_preserve_fd(session, file, TOKEN));
	}
	/* Who is told that it is preserved may rely on it. */
	point_step(point, "preserved", resize(file) == -EPERM ? 0 : -EBADE);
	close(session);
	point_step(point, "resize_at_end", resize(file));
	point_step(point, "content", look_at_content(file));
	close(file);
}

static void close_preserved(struct point *point, int luo_fd)
{
	int session = must(luo_create_session(luo_fd, "sweep")), file = make_file();

	must(luo_preserve_fd(session, file, TOKEN));
	fail_nth_arm(point->n);
	point_cut(point, sys(close(session)));
	point_step(point, "resize", resize(file));
	session = luo_create_session(luo_fd, "sweep");
	point_step(point, "create", session);
	if (session >= 0) {
		point_step(point, "preserve", luo_preserve_fd(session, file, TOKEN));
		close(session);
	}
	point_step(point, "content", look_at_content(file));
	close(file);
}

const struct call outgoing_calls[] = {
	{ "create_session", create_session },
	{ "preserve_fd", preserve_fd },
	{ "close_preserved", close_preserved },
	{ NULL, NULL },
};

static void session_name(char *name, size_t size, const char *call, const char *kind,
			 unsigned int n)
{
	snprintf(name, size, "%s-%s-%u", call, kind, n);
}

void preserve_for_incoming(int luo_fd, const char *call, enum fail_kind kind, unsigned int n)
{
	int file = make_file();
	char name[64];

	session_name(name, sizeof(name), call, fail_kind_names[kind], n);
	must(luo_preserve_fd(must(luo_create_session(luo_fd, name)), file, TOKEN));
	close(file);
}

static int take_session(const struct point *point, int luo_fd)
{
	char name[64];

	session_name(name, sizeof(name), point->call, point->kind, point->n);
	return luo_retrieve_session(luo_fd, name);
}

/* The rest of a session's life, as it ought to go on. */
static void retrieve_and_close(struct point *point, int session)
{
	int file = luo_retrieve_fd(session, TOKEN);

	point_step(point, "retrieve_fd", file);
	if (file >= 0) {
		point_step(point, "content", look_at_content(file));
		close(file);
	}
	point_step(point, "finish", luo_finish(session));
	close(session);
}

static void retrieve_session(struct point *point, int luo_fd)
{
	int session;

	fail_nth_arm(point->n);
	session = point_cut(point, take_session(point, luo_fd));
	if (session < 0) {
		session = take_session(point, luo_fd);
		point_step(point, "again", session);
	}
	if (session >= 0)
		retrieve_and_close(point, session);
}

static void retrieve_fd(struct point *point, int luo_fd)
{
	int session = must(take_session(point, luo_fd)), file;

	fail_nth_arm(point->n);
	file = point_cut(point, luo_retrieve_fd(session, TOKEN));
	if (file < 0) {
		file = luo_retrieve_fd(session, TOKEN);
		point_step(point, "again", file);
	}
	if (file >= 0) {
		point_step(point, "content", look_at_content(file));
		close(file);
	}
	point_step(point, "finish", luo_finish(session));
	close(session);
}

/* Cuts FINISH, and closes the session. */
static void finish_and_close(struct point *point, int session)
{
	int ret;

	fail_nth_arm(point->n);
	ret = point_cut(point, luo_finish(session));
	if (ret < 0)
		point_step(point, "again", luo_finish(session));
	close(session);
}

static void finish(struct point *point, int luo_fd)
{
	int session = must(take_session(point, luo_fd)), file;

	file = must(luo_retrieve_fd(session, TOKEN));
	finish_and_close(point, session);
	point_step(point, "content", look_at_content(file));
	close(file);
}

static void finish_unretrieved(struct point *point, int luo_fd)
{
	finish_and_close(point, must(take_session(point, luo_fd)));
}

static void close_unfinished(struct point *point, int luo_fd)
{
	int session = must(take_session(point, luo_fd));

	fail_nth_arm(point->n);
	point_cut(point, sys(close(session)));
	session = take_session(point, luo_fd);
	/* Of a session that was closed nothing is left. */
	point_step(point, "gone", session == -ENOENT ? 0 : session < 0 ? session : -EEXIST);
	if (session >= 0)
		close(session);
}

const struct call incoming_calls[] = {
	{ "retrieve_session", retrieve_session },
	{ "retrieve_fd", retrieve_fd },
	{ "finish", finish },
	{ "finish_unretrieved", finish_unretrieved },
	{ "close_unfinished", close_unfinished },
	{ NULL, NULL },
};
