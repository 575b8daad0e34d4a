// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is serialised fills pages, and each kind of list has to go on in another
 * one. Of one page hold (Linux 7.3, include/linux/kho/abi/{block,luo,memfd}.h):
 * 51 sessions, 63 files of a session, 256 folios of a memfd; and 511 such pages
 * of folios are one chunk of what describes them (kexec_handover.h), so that it
 * takes 130,817 folios for a second one: option --folios.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/liveupdate.h>

#include "ledger.h"
#include "many.h"
#include "pattern.h"
#include "rules.h"

#define SESSIONS 104
/* Of so many sessions are closed again: lists shrink as well. */
#define CLOSED_SESSIONS 30
/* Of as many as fill two pages, one more is refused: the list goes back to these two. */
#define FILES 126
#define ABORTED_FILES 63
#define ABORT_ROUNDS 3
#define FILES_SESSION "many-files"
/* A millisecond or so */
#define MEET_SPINS 200000
#define FOLIOS_SESSION "many-folios"

/* Names as long as they may be, that differ at their end only. */
static void session_name(char *name, unsigned int number)
{
	memset(name, 'n', LIVEUPDATE_SESSION_NAME_LENGTH - 1);
	snprintf(name + LIVEUPDATE_SESSION_NAME_LENGTH - 5, 5, "%04u", number);
}

/* Tokens are any number of 64 bits, the largest and the smallest among them. */
static u64 token_of(unsigned int number)
{
	return number == 1 ? -1ull : number * 0x123456789abcdefull;
}

static u64 content_of(u64 nonce, unsigned int session, unsigned int file)
{
	return pattern_word(nonce, ((u64)session << 32) + file);
}

static void preserve_word(int session, u64 token, u64 word)
{
	int file = must(sys(memfd_create("many", MFD_CLOEXEC)));

	must(sys(pwrite(file, &word, sizeof(word), 0)));
	must(luo_preserve_fd(session, file, token));
	close(file);
}

/* True when the session's file of that token holds the word. */
static bool retrieve_word(int session, u64 token, u64 word)
{
	int file = luo_retrieve_fd(session, token);
	u64 seen = 0;

	if (file < 0)
		return false;
	if (pread(file, &seen, sizeof(seen), 0) != sizeof(seen))
		seen = 0;
	close(file);
	return seen == word;
}

/* Every third session has no file at all. */
static bool is_empty(unsigned int session)
{
	return session % 3 == 2;
}

static void sessions_outgoing(int luo_fd, u64 nonce)
{
	char name[LIVEUPDATE_SESSION_NAME_LENGTH] = "";
	int fds[CLOSED_SESSIONS], session;

	for (unsigned int i = 0; i < CLOSED_SESSIONS; i++) {
		snprintf(name, sizeof(name), "many-closed-%u", i);
		fds[i] = must(luo_create_session(luo_fd, name));
	}
	for (unsigned int i = 0; i < SESSIONS; i++) {
		memset(name, 0, sizeof(name));
		session_name(name, i);
		/* One that is refused does not arrive. */
		session = luo_create_session(luo_fd, name);
		if (session >= 0 && !is_empty(i))
			preserve_word(session, token_of(0), content_of(nonce, i, 0));
		if (i == SESSIONS / 2 && param_control("some-dropped"))
			close(session);
	}
	for (unsigned int i = 0; i < CLOSED_SESSIONS; i++)
		close(fds[i]);
}

static void files_outgoing(int luo_fd, u64 nonce)
{
	int session = must(luo_create_session(luo_fd, FILES_SESSION));

	for (unsigned int i = 0; i < FILES; i++)
		if (i != FILES / 2 || !param_control("some-dropped"))
			preserve_word(session, token_of(i), content_of(nonce, SESSIONS, i));
	rule("preserve_one_more", -EBADF, luo_preserve_fd(session, -1, token_of(FILES)));
}

/* What an abort keeps of each file is seen when there were many. */
static void abort_many(int luo_fd, u64 nonce)
{
	int files[ABORTED_FILES], session;

	for (unsigned int i = 0; i < ABORTED_FILES; i++) {
		files[i] = must(sys(memfd_create("many-aborted", MFD_CLOEXEC)));
		must(sys(pwrite(files[i], &nonce, sizeof(nonce), 0)));
	}
	for (unsigned int round = 0; round <= ABORT_ROUNDS; round++) {
		session = must(luo_create_session(luo_fd, "many-aborted"));
		for (unsigned int i = 0; i < ABORTED_FILES; i++)
			must(luo_preserve_fd(session, files[i], token_of(i)));
		close(session);
		/* By the first round the kernel's caches have what they keep. */
		if (!round)
			ledger("many-aborted-once");
	}
	keep_memory();
	ledger("many-aborted");
	for (unsigned int i = 0; i < ABORTED_FILES; i++)
		close(files[i]);
}

static u64 folio_count(void)
{
	return param_u64("folios", 300);
}

static u64 *map_folios(int fd)
{
	u64 *memory = mmap(NULL, folio_count() * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   fd, 0);

	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	return memory;
}

static void folios_outgoing(int luo_fd, u64 nonce)
{
	int session = must(luo_create_session(luo_fd, FOLIOS_SESSION));
	int fd = must(sys(memfd_create("many-folios", MFD_CLOEXEC)));
	u64 *memory;

	must(sys(ftruncate(fd, folio_count() * PAGE_SIZE)));
	memory = map_folios(fd);
	must(luo_preserve_fd(session, fd, 1));
	for (u64 page = 0; page < folio_count(); page++)
		memory[page * PAGE_SIZE / sizeof(u64)] = pattern_word(nonce, page);
	if (param_control("some-dropped"))
		memory[0]++;
	must(sys(munmap(memory, folio_count() * PAGE_SIZE)));
	close(fd);
}

void many_outgoing(int luo_fd, u64 nonce)
{
	abort_many(luo_fd, nonce);
	sessions_outgoing(luo_fd, nonce);
	files_outgoing(luo_fd, nonce);
	folios_outgoing(luo_fd, nonce);
}

/* How many were right, of how many; @first is the first that was not, or none. */
static void say(const char *what, u64 right, u64 all, long long first)
{
	char key[64];

	snprintf(key, sizeof(key), "many.%s", what);
	fact(key, "right=%llu of=%llu first-wrong=%lld", right, all, first);
}

/* Another thread, which asks for each session at the same moment. */
struct rival {
	int luo_fd, session;
	char name[LIVEUPDATE_SESSION_NAME_LENGTH];
	/* how often each has begun */
	unsigned int asked, came;
	unsigned int retrieved_twice;
};

/* Whoever gave up its CPU at once would be late: to a thread that runs, for a while. */
static void meet(unsigned int *mine, const unsigned int *other)
{
	unsigned int spins = 0;

	__atomic_add_fetch(mine, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(other, __ATOMIC_SEQ_CST) < *mine)
		if (++spins > MEET_SPINS)
			sched_yield();
}

static void *run_rival(void *data)
{
	struct rival *rival = data;

	for (int i = 0; i < SESSIONS; i++) {
		meet(&rival->came, &rival->asked);
		rival->session = luo_retrieve_session(rival->luo_fd, rival->name);
		meet(&rival->came, &rival->asked);
	}
	return NULL;
}

/* One of two has it, and never both: who has it finishes it, and frees it. */
static int retrieve_before_rival(struct rival *rival)
{
	int session;

	meet(&rival->asked, &rival->came);
	session = luo_retrieve_session(rival->luo_fd, rival->name);
	meet(&rival->asked, &rival->came);
	if (session < 0 || rival->session < 0)
		return session < 0 ? rival->session : session;
	/* Neither is closed: the second to be would be one that is gone. */
	rival->retrieved_twice++;
	return -EEXIST;
}

static bool session_came(u64 nonce, unsigned int number, struct rival *rival)
{
	int session;
	bool right;

	session_name(rival->name, number);
	session = retrieve_before_rival(rival);
	if (session < 0)
		return false;
	right = is_empty(number) ? luo_retrieve_fd(session, token_of(0)) == -ENOENT :
		retrieve_word(session, token_of(0), content_of(nonce, number, 0));
	right = !luo_finish(session) && right;
	close(session);
	return right;
}

/* From the last to the first: no order is promised. */
static void sessions_incoming(int luo_fd, u64 nonce)
{
	struct rival rival = { .luo_fd = luo_fd };
	long long first = -1;
	pthread_t thread;
	u64 right = 0;

	must(-pthread_create(&thread, NULL, run_rival, &rival));
	for (int i = SESSIONS - 1; i >= 0; i--) {
		if (session_came(nonce, i, &rival))
			right++;
		else
			first = i;
	}
	must(-pthread_join(thread, NULL));
	say("sessions", right, SESSIONS, first);
	rule("retrieve_by_two_at_once", 0, rival.retrieved_twice);
}

static void files_incoming(int luo_fd, u64 nonce)
{
	int session = luo_retrieve_session(luo_fd, FILES_SESSION);
	long long first = -1;
	u64 right = 0;

	ledger("many-arrived");
	for (int i = FILES - 1; i >= 0; i--) {
		if (retrieve_word(session, token_of(i), content_of(nonce, SESSIONS, i)))
			right++;
		else
			first = i;
	}
	say("files", right, FILES, first);
	rule("finish_many", 0, luo_finish(session));
	close(session);
	keep_memory();
	ledger("many-finished");
}

static void folios_incoming(int luo_fd, u64 nonce)
{
	int session = luo_retrieve_session(luo_fd, FOLIOS_SESSION);
	int fd = luo_retrieve_fd(session, 1);
	u64 right = 0, *memory;
	long long first = -1;

	if (fd >= 0) {
		memory = map_folios(fd);
		for (u64 page = folio_count(); page-- > 0;) {
			if (memory[page * PAGE_SIZE / sizeof(u64)] == pattern_word(nonce, page))
				right++;
			else
				first = page;
		}
		must(sys(munmap(memory, folio_count() * PAGE_SIZE)));
		close(fd);
	}
	say("folios", right, folio_count(), first);
	close(session);
}

void many_incoming(int luo_fd, u64 nonce)
{
	sessions_incoming(luo_fd, nonce);
	files_incoming(luo_fd, nonce);
	folios_incoming(luo_fd, nonce);
}
