// SPDX-License-Identifier: GPL-2.0-only
/*
 * What mm/memfd_luo.c documents of a memfd that is preserved (its DOC comment,
 * Linux 7.3): content, size, position, seals and O_RDWR | O_LARGEFILE are kept,
 * all else is as in a new file. One small memfd for each state that makes a
 * difference there; all of them are in one session.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest_ram.h"
#include "memfd_look.h"
#include "memfd_states.h"
#include "memfd_swap.h"
#include "rules.h"

#define SESSION "states"
#define PAGES 8
#define SIZE (PAGES * PAGE_SIZE)
#define LARGE (2 << 20)
#define MEDIUM (64 << 10)
/* What fallocate() finds is not to be zero by chance. */
#define STALE_SIZE (4 << 20)

/* include/uapi/linux/fcntl.h, which cannot stand beside the C library's. */
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif
#define EXEC_SEALS (F_SEAL_EXEC | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)

#define STATE(NAME, SIZE_, ...) { .name = NAME, .size = SIZE_, ##__VA_ARGS__ }

/* How each is made; tokens are the places in this table, from 1. */
static const struct memfd_state states[] = {
	STATE("written", SIZE, .early = ALL_PAGES),
	STATE("hole", SIZE),
	STATE("partly-written", SIZE, .early = EVEN_PAGES),
	STATE("allocated", SIZE, .allocated = true),
	STATE("allocated-written-late", SIZE, .allocated = true, .late = ALL_PAGES),
	STATE("allocated-mapped-late", SIZE, .allocated = true, .late = ALL_PAGES, .by_map = true),
	STATE("allocated-partly-late", SIZE, .allocated = true, .early = EVEN_PAGES,
	      .late = ODD_PAGES),
	STATE("hole-written-late", SIZE, .late = ODD_PAGES),
	STATE("clean-written-late", SIZE, .read_early = true, .late = ALL_PAGES, .by_map = true),
	STATE("written-anew", SIZE, .early = ALL_PAGES, .late = EVEN_PAGES),
	STATE("mapped-shared", SIZE, .early = EVEN_PAGES, .late = ALL_PAGES, .by_map = true,
	      .stays_mapped = true),
	STATE("mapped-private", SIZE, .early = ALL_PAGES, .private = true),
	STATE("empty", 0),
	STATE("one-byte", 1, .early = ALL_PAGES),
	STATE("odd-size", 3 * PAGE_SIZE + 123, .early = ALL_PAGES),
	STATE("position", SIZE, .early = ALL_PAGES, .position = 4321),
	STATE("position-moved-late", SIZE, .early = ALL_PAGES, .position = 17,
	      .late_position = 1234),
	STATE("position-past-end", SIZE, .early = ALL_PAGES, .late_position = SIZE + 4097),
	STATE("position-past-4-gib", SIZE, .early = ALL_PAGES, .late_position = (5ull << 32) + 1),
	STATE("opened-twice", SIZE, .early = ALL_PAGES, .late = ODD_PAGES, .opened_twice = true,
	      .position = 99),
	STATE("duplicated", SIZE, .early = ALL_PAGES, .duplicated = true, .late_position = 777),
	STATE("status-flags", SIZE, .early = ALL_PAGES, .status_flags = O_APPEND | O_NONBLOCK),
	STATE("not-close-on-exec", SIZE, .early = ALL_PAGES, .inherited = true),
	STATE("large-folio", LARGE - 4567, .early = ALL_PAGES, .late = ODD_PAGES, .large = true),
	STATE("medium-folios", 4 * MEDIUM, .early = ALL_PAGES, .medium = true),
	STATE("swapped-out", SIZE, .early = ALL_PAGES, .late = ODD_PAGES, .swapped = true),
	STATE("unsealable", SIZE, .early = ALL_PAGES, .unsealable = true),
	STATE("seal-seal", SIZE, .early = ALL_PAGES, .seals = F_SEAL_SEAL),
	STATE("seal-shrink", SIZE, .early = ALL_PAGES, .seals = F_SEAL_SHRINK),
	STATE("seal-grow", SIZE, .early = ALL_PAGES, .seals = F_SEAL_GROW),
	STATE("seal-write", SIZE, .early = ALL_PAGES, .seals = F_SEAL_WRITE),
	STATE("seal-future-write", SIZE, .early = ALL_PAGES, .seals = F_SEAL_FUTURE_WRITE),
	STATE("seal-exec", SIZE, .early = ALL_PAGES, .seals = EXEC_SEALS),
	STATE("seal-some", SIZE, .early = ALL_PAGES, .seals = F_SEAL_SEAL | F_SEAL_GROW),
};

static u64 seed_of(u64 nonce, unsigned int token)
{
	return nonce + token * 0x100000001b3ull;
}

/* Pages that were somebody's, and say so. */
static void leave_stale_pages(void)
{
	u8 *memory = mmap(NULL, STALE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	memset(memory, 0xa5, STALE_SIZE);
	must(sys(munmap(memory, STALE_SIZE)));
}

static int open_again(int fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return must(sys(open(path, O_RDWR | O_CLOEXEC)));
}

/* What is swapped out is not in the next kernel's memory: to preserve it is to swap it in. */
static void swap_out(int fd, u64 size)
{
	u64 before = swapped_pages();

	memfd_page_out(fd, size);
	fact("files.swapped", "%llu", swapped_pages() - before);
}

static int new_state(const struct memfd_state *state, u64 seed)
{
	unsigned int flags = state->inherited ? 0 : MFD_CLOEXEC;
	int fd, again;

	if (!state->unsealable)
		flags |= MFD_ALLOW_SEALING;
	fd = must(sys(memfd_create(state->name, flags)));
	must(sys(ftruncate(fd, state->size)));
	if (state->allocated)
		must(sys(fallocate(fd, 0, 0, state->size)));
	if (state->medium)
		memfd_medium_folios(true);
	memfd_write(fd, state, state->early, seed);
	if (state->medium)
		memfd_medium_folios(false);
	if (state->large)
		ram_collapse(fd, LARGE, 0);
	if (state->read_early)
		memfd_touch(fd, state->size);
	if (state->swapped)
		swap_out(fd, state->size);
	if (state->seals && !param_control("files-unlike"))
		must(sys(fcntl(fd, F_ADD_SEALS, state->seals)));
	if (state->status_flags)
		must(sys(fcntl(fd, F_SETFL, state->status_flags)));
	/* What is preserved is the one that was opened later, or a copy of the fd. */
	again = state->opened_twice ? open_again(fd) : state->duplicated ? must(sys(dup(fd))) : fd;
	if (state->duplicated)
		close(fd);
	must(sys(lseek(again, state->position, SEEK_SET)));
	return again;
}

/* After it was preserved: what is still allowed then, and has to arrive, too. */
static void change_late(int fd, const struct memfd_state *state, u64 seed)
{
	/* A page of a private mapping that was written to is no page of the file. */
	if (state->private) {
		u8 *copy = mmap(NULL, state->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

		must_be(copy != MAP_FAILED, "%s", errno_name(-errno));
		memset(copy, 0x5a, state->size);
	}
	if (state->by_map)
		memfd_write_mapped(fd, state, seed + LATE);
	else
		memfd_write(fd, state, state->late, seed + LATE);
	if (state->late_position && !param_control("files-unlike"))
		must(sys(lseek(fd, state->late_position, SEEK_SET)));
}

/*
 * The position and the seals that are said are those that the table asks for:
 * control files-unlike sets neither.
 */
static void say_before(int fd, const struct memfd_state *state, u64 seed)
{
	struct memfd_look look;
	u64 position = state->late_position ?: state->position;

	memfd_look(fd, &look);
	look.position = position;
	look.seals = state->unsealable ? F_SEAL_SEAL : state->seals;
	look.digest = memfd_expected_digest(state, seed);
	if (state->status_flags)
		look.flags &= ~state->status_flags;
	/* A page that nobody has looked at stays so: to look is to have it zeroed. */
	if (!state->allocated || state->early || state->late)
		memfd_frames(fd, &look);
	memfd_say(state, &look);
}

void states_outgoing(int luo_fd, u64 nonce)
{
	int session = must(luo_create_session(luo_fd, SESSION)), fds[ARRAY_SIZE(states)], swap;

	leave_stale_pages();
	swap = swap_on();
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++) {
		fds[i] = new_state(&states[i], seed_of(nonce, i + 1));
		must(luo_preserve_fd(session, fds[i], i + 1));
	}
	if (!swap)
		swap_off();
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++) {
		change_late(fds[i], &states[i], seed_of(nonce, i + 1));
		say_before(fds[i], &states[i], seed_of(nonce, i + 1));
		/* LUO has its own reference; whose position is asked for is one of them. */
		close(fds[i]);
	}
	dialogue_line("# at files-written");
}

/* Memory pressure takes what it may: page cache that is clean. */
static void drop_caches(void)
{
	write_to("/proc/sys/vm/drop_caches", "1");
}

/* What is done wrong on purpose before the comparison. */
static int corrupt(int fd, unsigned int token)
{
	u8 byte;

	if (token == 1 && param_control("file-byte-flipped")) {
		must(sys(pread(fd, &byte, 1, 5000)));
		byte ^= 1;
		must(sys(pwrite(fd, &byte, 1, 5000)));
	}
	if (token == 1 && param_control("files-unlike"))
		must(sys(ftruncate(fd, 2 * SIZE)));
	if (token == 1 && param_control("files-unlike"))
		must(sys(fcntl(fd, F_SETFL, O_NONBLOCK)));
	if (token == 1 && param_control("file-copied"))
		return memfd_copy(fd);
	return fd;
}

/* Clean page cache, which the first look does not tell from any other. */
static void lose(int fd, unsigned int token)
{
	if (token == 1 && param_control("file-copied"))
		must(sys(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE_SIZE)));
}

/* More pressure: what is not clean is swapped out, and has to come back as it was. */
static void swap_all(const int *fds, u64 nonce, struct memfd_look *looks)
{
	int ret = swap_on();

	fact("files.swap", "%d", ret);
	if (ret < 0)
		return;
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++)
		if (fds[i] >= 0)
			memfd_page_out(fds[i], looks[i].size);
	fact("files.swapped", "%llu", swapped_pages());
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++)
		if (fds[i] >= 0)
			memfd_compare_again(fds[i], &states[i], seed_of(nonce, i + 1), &looks[i]);
	swap_off();
}

void states_incoming(int luo_fd, u64 nonce)
{
	int session = luo_retrieve_session(luo_fd, SESSION), fds[ARRAY_SIZE(states)];
	struct memfd_look looks[ARRAY_SIZE(states)] = {};

	if (session < 0) {
		ktap_skip("finish_files", "its session was not carried over");
		return;
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++) {
		fds[i] = luo_retrieve_fd(session, i + 1);
		looks[i].error = fds[i];
		if (fds[i] < 0)
			continue;
		fds[i] = corrupt(fds[i], i + 1);
		memfd_look(fds[i], &looks[i]);
		memfd_compare(fds[i], &states[i], seed_of(nonce, i + 1), &looks[i]);
	}
	rule("finish_files", 0, luo_finish(session));
	drop_caches();
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++) {
		if (fds[i] < 0)
			continue;
		lose(fds[i], i + 1);
		memfd_compare_again(fds[i], &states[i], seed_of(nonce, i + 1), &looks[i]);
		memfd_frames(fds[i], &looks[i]);
	}
	/* From here on they are written to: the host has to be done with its look. */
	await("files");
	swap_all(fds, nonce, looks);
	for (unsigned int i = 0; i < ARRAY_SIZE(states); i++) {
		if (fds[i] >= 0) {
			memfd_try(fds[i], &looks[i]);
			close(fds[i]);
		}
		memfd_say(&states[i], &looks[i]);
	}
	close(session);
}
