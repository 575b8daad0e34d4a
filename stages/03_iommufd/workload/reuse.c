// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device wrote to a moment ago is unmapped, and the device is led there
 * again at once: the IOMMU has those translations cached.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest_ram.h"
#include "hwpt.h"
#include "iommufd.h"
#include "reuse.h"

/* Buffers that were just written to: 16 pages. */
#define USED 32
/*
 * So many frames until the device is led there again, for the unmap to be over:
 * a quarter of a second. QEMU caches 1,024 translations, and needs a new one for
 * every second frame (hw/i386/intel_iommu_internal.h: VTD_IOTLB_MAX_SIZE).
 */
#define AHEAD 256
/* Two pages, of which the second is in no naturally aligned range with the first but a larger one. */
#define UNALIGNED_IOVA ((7ull << 40) + RING_PAGE_SIZE)
#define UNALIGNED_SIZE (2 * RING_PAGE_SIZE)
#define UNALIGNED_USED (RING_PAGE_SIZE / RING_BUFFER_SIZE)

static u64 buffer_iova(const struct nic *nic, u32 index)
{
	return chunk_iova(nic, index / CHUNK_DESCRIPTORS) +
	       index % CHUNK_DESCRIPTORS * RING_BUFFER_SIZE;
}

/* One after the last of USED buffers that were just written to, all of one chunk. */
static u32 just_used(struct nic *nic)
{
	read_frames(nic, USED);
	while (nic->reader->next % CHUNK_DESCRIPTORS < USED)
		read_frames(nic, 1);
	return nic->reader->next;
}

/* Descriptors that the device has done with and nobody has read. */
static u32 waiting(const struct nic *nic, u32 head)
{
	return (head + COUNT - nic->reader->next) % COUNT;
}

/* How many frames land in the second page; with @unmap neither page is mapped when they come. */
static u32 land_unaligned(struct nic *nic, u8 *page, bool unmap)
{
	u32 head = igb_rx_head(&nic->igb), landed = 0;
	u64 until = descriptors_read(nic) + waiting(nic, head) + AHEAD + UNALIGNED_USED;

	memset(page, 0, RING_PAGE_SIZE);
	for (u32 i = 0; i < UNALIGNED_USED; i++)
		reader_descriptor(nic->memory, (head + AHEAD + i) % COUNT)->read.packet =
			UNALIGNED_IOVA + RING_PAGE_SIZE + i * RING_BUFFER_SIZE;
	if (unmap)
		must(iommufd_unmap(nic->iommufd, nic->ioas, UNALIGNED_IOVA, UNALIGNED_SIZE));
	read_until(nic, until);
	for (u32 i = 0; i < UNALIGNED_USED; i++)
		landed += page[i * RING_BUFFER_SIZE] != 0;
	return landed;
}

static void reuse_unaligned(struct nic *nic)
{
	u32 before, after;
	u8 *memory;
	int memfd;

	/* Whose reason is that the page table stays as it is. */
	if (param_control("unmap-left-out")) {
		fact("reuse.unaligned", "not tried");
		return;
	}
	memfd = must(sys(memfd_create("unaligned", MFD_CLOEXEC)));
	must(sys(ftruncate(memfd, UNALIGNED_SIZE)));
	memory = ram_map(memfd, UNALIGNED_SIZE);
	must(iommufd_map_file(nic->iommufd, nic->ioas, memfd, 0, UNALIGNED_SIZE, UNALIGNED_IOVA));
	before = land_unaligned(nic, memory + RING_PAGE_SIZE, false);
	after = land_unaligned(nic, memory + RING_PAGE_SIZE, true);
	fact("reuse.unaligned", "%u, then %u of %u", before, after,
	     (unsigned int)UNALIGNED_USED);
	must(sys(munmap(memory, UNALIGNED_SIZE)));
	close(memfd);
}

void reuse_unmapped(struct nic *nic)
{
	u32 end = just_used(nic), head = igb_rx_head(&nic->igb), landed = 0;
	u64 until = descriptors_read(nic) + waiting(nic, head) + AHEAD + USED, sequence[USED];
	u32 chunk = end / CHUNK_DESCRIPTORS;

	for (u32 i = 0; i < USED; i++) {
		sequence[i] = reader_frame(nic->memory, end - USED + i)->sequence;
		reader_descriptor(nic->memory, (head + AHEAD + i) % COUNT)->read.packet =
			buffer_iova(nic, end - USED + i);
	}
	if (!param_control("unmap-left-out"))
		fact("reuse.unmap", "%d",
		     iommufd_unmap(nic->iommufd, nic->ioas, chunk_iova(nic, chunk), CHUNK));
	fact("reuse.iova", "0x%llx", buffer_iova(nic, end - USED));
	fact("reuse.length", "%u", USED * RING_BUFFER_SIZE);
	read_until(nic, until);
	for (u32 i = 0; i < USED; i++)
		landed += reader_frame(nic->memory, end - USED + i)->sequence != sequence[i];
	fact("reuse.landed", "%u of %u", landed, USED);
	if (!param_control("unmap-left-out"))
		must(nic_map_chunk(nic, nic->ioas, chunk, chunk));
	reuse_unaligned(nic);
	/* Of these some have faulted. */
	read_until(nic, descriptors_read(nic) + waiting(nic, igb_rx_head(&nic->igb)));
}
