/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device behind the IOMMU, its memory, and the reader of its ring. All that
 * the reader knows is in the memory, which is handed over.
 */
#ifndef NIC_H
#define NIC_H

#include "igb.h"
#include "reader.h"

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
	TOKEN_GUEST_RAM,
	TOKEN_GUEST_STATE,
};

#define TOKEN_HWPT 0x4000
#define TOKEN_OTHER_HWPT 0x4001

#define COUNT ring_count()
#define DESCRIPTORS READER_DESCRIPTORS
#define CHUNK READER_CHUNK
#define CHUNKS (COUNT * RING_BUFFER_SIZE / CHUNK)
#define CHUNK_DESCRIPTORS READER_CHUNK_DESCRIPTORS
#define BUFFERS CHUNK
#define MEMORY_SIZE (BUFFERS + CHUNKS * CHUNK)

#define IOVA iova_base()
/* Not where the memory is. */
#define EXTRA_IOVA (3ull << 40)
#define READ_ONLY_IOVA (5ull << 40)
#define APART_IOVA (6ull << 40)
/* In the last chunk of the file. */
#define APART_FIRST (MEMORY_SIZE - CHUNK + 5 * RING_PAGE_SIZE)
#define APART_SECOND (MEMORY_SIZE - CHUNK + 9 * RING_PAGE_SIZE)

#define RATE param_u64("rate", 1000)

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
	/* A guest reads the ring, and this program only looks at what it has read. */
	bool guest;
	struct igb igb;
};

u32 ring_count(void);
u64 iova_base(void);
u64 chunk_iova(const struct nic *nic, u32 chunk);

void nic_new_memory(struct nic *nic);
void nic_map_memory(struct nic *nic);
int nic_map_chunk(const struct nic *nic, u32 ioas, u32 chunk, u64 from);
int nic_map_read_only(const struct nic *nic, u32 ioas);
void nic_map_apart(const struct nic *nic, u32 ioas);
void nic_map_all(const struct nic *nic, u32 ioas);
int nic_map_in_two(const struct nic *nic, u32 ioas, u32 chunk, u64 cut);
void nic_map_all_again(const struct nic *nic, u32 ioas);
void nic_open(struct nic *nic);
void nic_start(struct nic *nic, u32 descriptors);
void nic_force_mastering(const char *bdf);
bool nic_goes_on(const struct nic *nic);

void read_all(struct nic *nic);
u64 descriptors_read(const struct nic *nic);
void read_until(struct nic *nic, u64 descriptors);
void read_frames(struct nic *nic, u64 wanted);
bool frames_come(struct nic *nic, u64 wanted);
void go_round(struct nic *nic, u64 before);
void read_while(struct nic *nic, bool (*goes_on)(int argument), int argument);

#endif
