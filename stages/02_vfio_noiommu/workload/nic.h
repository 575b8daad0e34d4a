/* SPDX-License-Identifier: GPL-2.0-only */
/* An igb in no-IOMMU mode that writes frames into a memfd. */
#ifndef NIC_H
#define NIC_H

#include <pthread.h>

#include "igb.h"
#include "ring.h"
#include "workload.h"

/* Where the memory begins for iommufd; the device itself uses physical addresses. */
#define NIC_IOVA 0x100000000ull
/* What its user writes to a register of its configuration, which has 0 of its own. */
#define USERS_CACHE_LINE 0x24

/**
 * struct nic - a device, the memory it writes to, and who moves its tail
 * @bdf: PCI address
 * @device: vfio's file
 * @memory: mapping of @memfd, which @ioas maps too
 * @ring: in @memory
 */
struct nic {
	const char *bdf;
	int device;
	int iommufd;
	u32 ioas;
	int memfd;
	u8 *memory;
	u64 size;
	struct ring *ring;
	struct igb igb;

	pthread_t bell;
	bool bell_rings;
	u32 tail;
};

/**
 * struct places - PCI addresses; see common/dma/igb.py
 * @device: what is preserved
 * @other: the second device
 * @other_port: right above it, and above no other
 * @other_vf: its first VF: an igb says that it is 128 functions further on
 */
struct places {
	const char *device;
	const char *other;
	const char *other_port;
	const char *other_vf;
};

const struct places *places(void);
void nic_open(struct nic *nic);
void nic_close(struct nic *nic);
int nic_bind(struct nic *nic, int device);
void nic_map(struct nic *nic);
void nic_map_in_halves(struct nic *nic);
void nic_read_pfns(const struct nic *nic, u64 *pfns);
void nic_place_ring(struct nic *nic, u64 area, u32 count, u64 nonce);
bool nic_was_stopped(const struct nic *nic);
void nic_enable(const struct nic *nic);
void nic_start(struct nic *nic);
void nic_start_bell(struct nic *nic);
void nic_stop_bell(struct nic *nic);
bool nic_gets_frames(const struct nic *nic);
void nic_wait_idle(const struct nic *nic);
void nic_report(const struct nic *nic);

#endif
