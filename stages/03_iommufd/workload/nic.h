/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device behind the IOMMU, its memory, and the reader of its ring. All that
 * the reader knows is in the memory, which is handed over.
 */
#ifndef NIC_H
#define NIC_H

#include "igb.h"

#define SESSION "stage3"

enum token {
	TOKEN_RAM = 1,
	TOKEN_IOMMUFD,
	TOKEN_DEVICE,
	TOKEN_CANARY,
	TOKEN_EXTRA,
	TOKEN_OTHER_RAM,
	TOKEN_OTHER_IOMMUFD,
	TOKEN_OTHER_DEVICE,
};

#define TOKEN_HWPT 0x4000
#define TOKEN_OTHER_HWPT 0x4001

/*
 * The memory: a page for the reader's state, the descriptors, and the buffers in
 * chunks, each an area of its own in the IOAS.
 */
#define COUNT ring_count()
#define DESCRIPTORS RING_PAGE_SIZE
#define CHUNK (2ull << 20)
#define CHUNKS (COUNT * RING_BUFFER_SIZE / CHUNK)
#define CHUNK_DESCRIPTORS (CHUNK / RING_BUFFER_SIZE)
#define BUFFERS CHUNK
#define MEMORY_SIZE (BUFFERS + CHUNKS * CHUNK)

#define IOVA iova_base()
/* Not where the memory is. */
#define EXTRA_IOVA (3ull << 40)

#define RATE param_u64("rate", 1000)

/* What the reader knows. A frame is missing when its descriptor is done, its buffer as it was. */
struct reader {
	u64 nonce;
	u32 next;
	u64 frames;
	u64 sequence;
	u64 lost;
	u64 damaged;
	u64 missing;
	u64 canary;
	u64 pfns;
	u64 kexecs;
};

struct nic {
	const char *bdf;
	int memfd;
	/* A page of real memory whose address is no IOVA; -1 without one. */
	int canary;
	u8 *memory;
	struct reader *reader;
	int iommufd;
	int device;
	u32 dev_id;
	u32 ioas;
	u32 hwpt;
	struct igb igb;
};

u32 ring_count(void);
u64 iova_base(void);
u64 chunk_iova(u32 chunk);
void descriptor_set_address(const struct nic *nic, u32 index, u64 iova);

void nic_new_memory(struct nic *nic);
void nic_map_memory(struct nic *nic);
int nic_map_chunk(const struct nic *nic, u32 ioas, u32 chunk, u64 from);
void nic_map_all(const struct nic *nic, u32 ioas);
void nic_open(struct nic *nic);
void nic_start(struct nic *nic, u32 descriptors);
bool nic_goes_on(const struct nic *nic);

bool read_frame(struct nic *nic);
void read_frames(struct nic *nic, u64 wanted);
bool frames_come(struct nic *nic, u64 wanted);
void go_round(struct nic *nic, u64 before);

#endif
