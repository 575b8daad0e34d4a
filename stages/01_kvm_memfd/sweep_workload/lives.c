// SPDX-License-Identifier: GPL-2.0-only
/*
 * A session's life, once for each of its calls: the call is cut, then made
 * again, and everything is closed. A file has pages that were written to and
 * pages that are not there yet. Beside the file that is meant there is another
 * one, to which nothing may happen.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lives.h"
#include "pattern.h"

#define TOKEN 7
#define OTHER_TOKEN 8
#define PAGES 8
#define WRITTEN 4
#define SIZE (PAGES * PAGE_SIZE)

/* Files have other content than each other. */
static void fill(u64 *page, u64 token, unsigned int number)
{
	memset(page, 0, PAGE_SIZE);
	if (number < WRITTEN)
		pattern_page(page, param_nonce(), token * PAGES + number);
}

static int make_file(u64 token)
{
	int file = must(sys(memfd_create("sweep", MFD_CLOEXEC)));
	u64 page[PAGE_SIZE / sizeof(u64)];

	must(sys(ftruncate(file, SIZE)));
	for (unsigned int i = 0; i < WRITTEN; i++) {
		fill(page, token, i);
		must(sys(pwrite(file, page, PAGE_SIZE, i * PAGE_SIZE)));
	}
	return file;
}

/* 0, -errno, or -EIO where the file does not hold what was written. */
static int look_at_content(int file, u64 token)
{
	u64 seen[PAGE_SIZE / sizeof(u64)], due[PAGE_SIZE / sizeof(u64)];

	for (unsigned int i = 0; i < PAGES; i++) {
		int got = sys(pread(file, seen, PAGE_SIZE, i * PAGE_SIZE));

		if (got < 0)
			return got;
		fill(due, token, i);
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

	point_arm(point);
	session = point_cut(point, luo_create_session(luo_fd, "sweep"));
	if (session < 0) {
		session = luo_create_session(luo_fd, "sweep");
		point_step(point, "again", session);
	}
	if (session >= 0)
		close(session);
}

/* Who is told that a file is preserved may rely on it. */
static int is_preserved(int file)
{
	return resize(file) == -EPERM ? 0 : -EBADE;
}

/* Cuts PRESERVE_FD; where it failed it is made again. */
static void cut_preserve(struct point *point, int session, int file)
{
	point_arm(point);
	if (point_cut(point, luo_preserve_fd(session, file, TOKEN)) < 0) {
		point_step(point, "resize", resize(file));
		point_step(point, "again", luo_preserve_fd(session, file, TOKEN));
	}
	point_step(point, "preserved", is_preserved(file));
}

static void end_file(struct point *point, int file, u64 token)
{
	bool other = token == OTHER_TOKEN;

	point_step(point, other ? "other_resize" : "resize_at_end", resize(file));
	point_step(point, other ? "other_content" : "content", look_at_content(file, token));
	close(file);
}

static void preserve_fd(struct point *point, int luo_fd)
{
	int session = must(luo_create_session(luo_fd, "sweep")), file = make_file(TOKEN);

	cut_preserve(point, session, file);
	close(session);
	end_file(point, file, TOKEN);
}

static void preserve_second(struct point *point, int luo_fd)
{
	int session = must(luo_create_session(luo_fd, "sweep")), file = make_file(TOKEN);
	int other = make_file(OTHER_TOKEN);

	must(luo_preserve_fd(session, other, OTHER_TOKEN));
	cut_preserve(point, session, file);
	point_step(point, "other", is_preserved(other));
	close(session);
	end_file(point, file, TOKEN);
	end_file(point, other, OTHER_TOKEN);
}

static void close_preserved(struct point *point, int luo_fd)
{
	int session = must(luo_create_session(luo_fd, "sweep")), file = make_file(TOKEN);
	int other = make_file(OTHER_TOKEN);

	must(luo_preserve_fd(session, file, TOKEN));
	must(luo_preserve_fd(session, other, OTHER_TOKEN));
	point_arm(point);
	point_cut_for_good(point, sys(close(session)));
	point_step(point, "resize", resize(file));
	session = luo_create_session(luo_fd, "sweep");
	point_step(point, "create", session);
	if (session >= 0) {
		point_step(point, "preserve", luo_preserve_fd(session, file, TOKEN));
		point_step(point, "other", luo_preserve_fd(session, other, OTHER_TOKEN));
		close(session);
	}
	end_file(point, file, TOKEN);
	end_file(point, other, OTHER_TOKEN);
}

static void session_name(char *name, size_t size, const char *call, const char *kind,
			 unsigned int n)
{
	snprintf(name, size, "%s-%s-%u", call, kind, n);
}

static int take_session(const struct point *point, const char *call, int luo_fd)
{
	char name[64];

	session_name(name, sizeof(name), call, point->kind, point->n);
	return luo_retrieve_session(luo_fd, name);
}

#define KEPT "preserve_kept"

/* Whatever came of the call, what is said to be preserved arrives: take_kept(). */
static void preserve_kept(struct point *point, int luo_fd)
{
	int file = make_file(TOKEN), other = make_file(OTHER_TOKEN), session;
	char name[64];

	session_name(name, sizeof(name), KEPT, point->kind, point->n);
	session = must(luo_create_session(luo_fd, name));
	cut_preserve(point, session, file);
	point_step(point, "other", luo_preserve_fd(session, other, OTHER_TOKEN));
	close(file);
	close(other);
}

const struct call outgoing_calls[] = {
	{ "create_session", create_session },
	{ "preserve_fd", preserve_fd },
	{ "preserve_second", preserve_second },
	{ "close_preserved", close_preserved },
	{ KEPT, preserve_kept },
	{ NULL, NULL },
};

void preserve_for_incoming(int luo_fd, const char *call, enum fail_kind kind, unsigned int n)
{
	static const u64 tokens[] = { TOKEN, OTHER_TOKEN };
	char name[64];
	int session;

	session_name(name, sizeof(name), call, fail_kind_names[kind], n);
	session = must(luo_create_session(luo_fd, name));
	for (unsigned int i = 0; i < ARRAY_SIZE(tokens); i++) {
		int file = make_file(tokens[i]);

		must(luo_preserve_fd(session, file, tokens[i]));
		close(file);
	}
}

static void retrieve(struct point *point, int session, u64 token)
{
	bool other = token == OTHER_TOKEN;
	int file = luo_retrieve_fd(session, token);

	point_step(point, other ? "retrieve_other" : "retrieve_fd", file);
	if (file < 0)
		return;
	point_step(point, other ? "other_content" : "content", look_at_content(file, token));
	close(file);
}

static void end_session(struct point *point, int session)
{
	point_step(point, "finish", luo_finish(session));
	close(session);
}

/* The rest of a session's life, as it ought to go on. */
static void retrieve_and_close(struct point *point, int session)
{
	retrieve(point, session, TOKEN);
	retrieve(point, session, OTHER_TOKEN);
	end_session(point, session);
}

/* -ENOENT where the outgoing kernel had no such point. */
int take_kept(struct point *point, int luo_fd)
{
	int session = take_session(point, KEPT, luo_fd);

	if (session >= 0)
		retrieve_and_close(point, session);
	return session;
}

static void retrieve_session(struct point *point, int luo_fd)
{
	int session;

	point_arm(point);
	session = point_cut(point, take_session(point, point->call, luo_fd));
	if (session < 0) {
		session = take_session(point, point->call, luo_fd);
		point_step(point, "again", session);
	}
	if (session >= 0)
		retrieve_and_close(point, session);
}

static void retrieve_fd(struct point *point, int luo_fd)
{
	int session = must(take_session(point, point->call, luo_fd)), file;

	point_arm(point);
	file = point_cut_for_good(point, luo_retrieve_fd(session, TOKEN));
	if (file < 0) {
		file = luo_retrieve_fd(session, TOKEN);
		point_step(point, "again", file);
	}
	if (file >= 0) {
		point_step(point, "content", look_at_content(file, TOKEN));
		close(file);
	}
	retrieve(point, session, OTHER_TOKEN);
	end_session(point, session);
}

/* Cuts FINISH, and closes the session. */
static void finish_and_close(struct point *point, int session)
{
	int ret;

	point_arm(point);
	ret = point_cut(point, luo_finish(session));
	if (ret < 0)
		point_step(point, "again", luo_finish(session));
	close(session);
}

/* One file is retrieved, the other is not. */
static void finish(struct point *point, int luo_fd)
{
	int session = must(take_session(point, point->call, luo_fd)), file;

	file = must(luo_retrieve_fd(session, TOKEN));
	finish_and_close(point, session);
	point_step(point, "content", look_at_content(file, TOKEN));
	close(file);
}

static void finish_unretrieved(struct point *point, int luo_fd)
{
	finish_and_close(point, must(take_session(point, point->call, luo_fd)));
}

static void close_unfinished(struct point *point, int luo_fd)
{
	int session = must(take_session(point, point->call, luo_fd));

	point_arm(point);
	point_cut_for_good(point, sys(close(session)));
	session = take_session(point, point->call, luo_fd);
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
