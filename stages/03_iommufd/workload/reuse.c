// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the device wrote to a moment ago is unmapped, and the device is led there
 * again at once: the IOMMU has those translations cached.
 */
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
	/* Of these some have faulted. */
	read_until(nic, descriptors_read(nic) + waiting(nic, igb_rx_head(&nic->igb)));
}
