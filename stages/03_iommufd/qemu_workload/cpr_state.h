/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What QEMU leaves to the program that cpr-exec starts: which descriptor is
 * which, and the ids of iommufd's objects. The format is private to QEMU; this
 * one is that of 11.1.
 */
#ifndef CPR_STATE_H
#define CPR_STATE_H

#include "workload.h"

#define CPR_MAX_FDS 128
#define CPR_MAX_SIZE 16384

/**
 * struct cpr_fd - a descriptor of QEMU's
 * @name: what it is to QEMU
 * @id: which one of those of that name
 * @number: its number in that QEMU, and in the next
 */
struct cpr_fd {
	char name[64];
	u32 id;
	int number;
};

/**
 * struct cpr_device - a vfio device as QEMU knows it
 * @ids: place in the state of the ids of device, IOAS and HWPT
 */
struct cpr_device {
	char name[64];
	u32 device;
	u32 ioas;
	u32 hwpt;
	size_t ids;
};

struct cpr_state {
	size_t size;
	u32 nr_fds;
	struct cpr_fd fds[CPR_MAX_FDS];
	struct cpr_device device;
	u8 bytes[CPR_MAX_SIZE];
};

const char *cpr_parse(struct cpr_state *state);
void cpr_set_ids(struct cpr_state *state, u32 device, u32 ioas, u32 hwpt);
const struct cpr_fd *cpr_find(const struct cpr_state *state, const char *name, u32 id);

#endif
