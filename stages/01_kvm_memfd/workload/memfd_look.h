/* SPDX-License-Identifier: GPL-2.0-only */
/* What there is to be seen of a memfd, and how its content is made. */
#ifndef MEMFD_LOOK_H
#define MEMFD_LOOK_H

#include "pattern.h"

enum pages {
	NO_PAGES,
	ALL_PAGES,
	EVEN_PAGES,
	ODD_PAGES,
};

/* What is written after a file was preserved is another pattern than what was before. */
#define LATE 0x1000000000000000ull

/**
 * struct memfd_state - how a memfd is made, and what happens to it
 * @early: pages written before it is preserved
 * @late: pages written after it
 * @allocated: by fallocate(), before anything is written
 * @by_map: @late is written through a shared mapping
 * @read_early: read through a mapping before it is preserved
 * @stays_mapped: its mapping is there until the kexec
 * @private: it is mapped privately, and that mapping is written to
 * @large: put into one large folio before it is preserved
 * @medium: made of folios between the small and the large ones
 * @swapped: its pages are swapped out when it is preserved
 * @inherited: not close-on-exec
 * @unsealable: made without MFD_ALLOW_SEALING
 * @opened_twice: what is preserved is a second open file of it
 * @duplicated: what is preserved is a copy of its fd; the first one is closed
 * @late_position: where it is not 0, the position is moved there at last
 */
struct memfd_state {
	const char *name;
	u64 size;
	enum pages early, late;
	bool allocated, by_map, read_early, stays_mapped, private, large, medium, swapped;
	bool inherited, unsealable, opened_twice, duplicated;
	u32 seals, status_flags;
	u64 position, late_position;
};

#define MAX_EXTENTS 64

/* Number of pages whose flags are not what a page of a memfd that may not be lost has. */
struct page_faults {
	unsigned int locked, not_uptodate, not_dirty, not_lru, not_swapbacked;
};

struct memfd_look {
	int error;
	u64 size, blocks, position, digest;
	u32 seals, flags, close_on_exec, mode;
	/* Of the incoming side: bytes that differ, those of them that are 0, and the first. */
	u64 wrong, zeros, first_wrong, lost;
	/* Runs of pages, by page frame number; pages in folios of more than one. */
	struct {
		u64 pfn, count;
	} extents[MAX_EXTENTS];
	unsigned int nr_extents, compound;
	struct page_faults faults;
	/* Of MEMFD_MAY_*, what the file lets one do. */
	char may[64];
};

void memfd_write(int fd, const struct memfd_state *state, enum pages pages, u64 seed);
void memfd_write_mapped(int fd, const struct memfd_state *state, u64 seed);
void memfd_touch(int fd, u64 size);
void memfd_medium_folios(bool on);
int memfd_copy(int fd);
u64 memfd_expected_digest(const struct memfd_state *state, u64 seed);
void memfd_look(int fd, struct memfd_look *look);
void memfd_compare(int fd, const struct memfd_state *state, u64 seed, struct memfd_look *look);
void memfd_compare_again(int fd, const struct memfd_state *state, u64 seed,
			 struct memfd_look *look);
void memfd_frames(int fd, struct memfd_look *look);
void memfd_try(int fd, struct memfd_look *look);
void memfd_say(const struct memfd_state *state, const struct memfd_look *look);

#endif
