/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memfd by which one side tells the other what is in the session, and what
 * QEMU left: its CPR state, and which areas of its memory the device could use.
 * QEMU's migration stream follows, from HANDOVER_STREAM on.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include "cpr_state.h"

#define HANDOVER_MAGIC	0x43494e2055574551ull
#define HANDOVER_LAYOUT	1
#define HANDOVER_AREAS	32
/* QEMU empties its file up to here and no further. */
#define HANDOVER_STREAM	(64ull << 10)

/* The memfd that QEMU knows as descriptor n is preserved as TOKEN_FILES + n. */
#define TOKEN_FILES	0x100

enum qemu_token {
	TOKEN_HANDOVER = 1,
	TOKEN_QEMU_IOMMUFD,
	TOKEN_QEMU_DEVICE,
	TOKEN_PFNS,
};

/* What a descriptor of QEMU's is, by the kernel's own name of the open file. */
enum file_kind {
	FILE_MEMFD,
	FILE_EVENTFD,
	FILE_IOMMUFD,
	FILE_DEVICE,
};

/**
 * struct area - memory that the device may use, as QEMU mapped it
 * @iova: for the device: the guest's physical address
 * @start: in the memfd
 * @number: of the memfd, in QEMU
 */
struct area {
	u64 iova;
	u64 size;
	u64 start;
	int number;
	bool read_only;
};

struct handover {
	u64 magic;
	u64 layout;
	u64 nonce;
	u64 ram_size;
	u64 vcpus;
	u64 stream_size;
	u32 nr_areas;
	u32 nr_vectors;
	enum file_kind kind[CPR_MAX_FDS];
	struct area area[HANDOVER_AREAS];
	struct cpr_state state;
};

struct handover *handover_create(int *fd);
struct handover *handover_map(int fd);
const char *handover_refused(const struct handover *handover, u64 size);

/* areas.c */
void areas_read(struct handover *handover);
u64 areas_size(const struct handover *handover, bool read_only);

#endif
