// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "iommufd.h"
#include "nic.h"
#include "vfio.h"

/* Written to a register that nothing uses; a reset would clear it. */
#define SCRATCH 0x5afe1234

/* Frames come every millisecond; the bound is for a host that is busy. */
#define FRAME_MS 1000
#define IDLE_MS 100

const struct places *places(void)
{
	static const struct places behind_ports = {
		.device = "0000:01:00.0",
		.other = "0000:02:00.0",
		.other_port = "0000:00:03.0",
		.other_vf = "0000:02:10.0",
	};
	static const struct places behind_switch = {
		.device = "0000:03:00.0",
		.other = "0000:04:00.0",
		.other_port = "0000:02:01.0",
		.other_vf = "0000:04:10.0",
	};

	return param_u64("switch", 0) ? &behind_switch : &behind_ports;
}

/* @device goes to a new iommufd, and its registers are mapped. */
int nic_bind(struct nic *nic, int device)
{
	int ret;

	nic->device = device;
	nic->iommufd = must(iommufd_open());
	ret = vfio_bind(device, nic->iommufd);
	if (ret < 0)
		return ret;
	return vfio_bar_map(device, 0, IGB_BAR0_SIZE, (void **)&nic->igb.bar0);
}

/* The memory goes to an IOAS, which pins it, and the device is attached to that. */
void nic_map(struct nic *nic)
{
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, nic->size, NIC_IOVA));
	must(vfio_attach(nic->device, nic->ioas));
}

/* The same in two pieces: it is the memory that counts, and not how it is mapped. */
void nic_map_in_halves(struct nic *nic)
{
	u64 half = nic->size / 2;

	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, half, NIC_IOVA));
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, half, nic->size - half,
			      NIC_IOVA + half));
	must(vfio_attach(nic->device, nic->ioas));
}

void nic_open(struct nic *nic)
{
	static const u8 cache_line = USERS_CACHE_LINE;

	must(pci_driver_bind(nic->bdf, "vfio-pci"));
	must(nic_bind(nic, must(vfio_cdev_open(nic->bdf))));
	must(vfio_config_write(nic->device, PCI_CACHE_LINE_SIZE, &cache_line, sizeof(cache_line)));
	nic_map(nic);
}

/* For good: who waits for the device's file gets it. */
void nic_close(struct nic *nic)
{
	must(sys(munmap((void *)nic->igb.bar0, IGB_BAR0_SIZE)));
	close(nic->device);
	close(nic->iommufd);
}

/* Bytes that follow each other physically from @offset on; *@pa is where. */
static u64 extent(const struct nic *nic, u64 offset, u64 *pa)
{
	u64 length = nic->size - offset;

	must(iommufd_get_pa(nic->iommufd, nic->ioas, NIC_IOVA + offset, &length, pa));
	must_be(length && length % RING_PAGE_SIZE == 0, "extent of %llu bytes", length);
	return length;
}

/* The page frame numbers of all of the memory, as iommufd gives them to a device. */
void nic_read_pfns(const struct nic *nic, u64 *pfns)
{
	u64 offset = 0;

	while (offset < nic->size) {
		u64 pa, end = offset + extent(nic, offset, &pa);

		for (; offset < end; offset += RING_PAGE_SIZE, pa += RING_PAGE_SIZE)
			*pfns++ = pa / RING_PAGE_SIZE;
	}
}

static int by_pfn(const void *a, const void *b)
{
	const struct ring_page *left = a, *right = b;

	return left->pfn < right->pfn ? -1 : left->pfn > right->pfn;
}

/*
 * Without an IOMMU the descriptors have to be one piece of physical memory.
 * @pages are sorted by PFN; the first of @wanted that follow each other.
 */
static u64 find_piece(const struct ring_page *pages, u64 nr_pages, u64 wanted)
{
	u64 first = 0;

	for (u64 i = 0; i < nr_pages; i++) {
		if (i && pages[i].pfn != pages[i - 1].pfn + 1)
			first = i;
		if (i - first + 1 == wanted)
			return first;
	}
	bail("no %llu pages among %llu are one piece", wanted, nr_pages);
}

static void give_to_device(struct nic *nic, u32 index)
{
	volatile union igb_rx_desc *descriptor =
		(void *)(nic->memory + ring_descriptor(nic->ring, index));

	descriptor->read.packet = ring_buffer_pa(nic->ring, index);
	descriptor->read.header = 0;
}

/* Fills in nic->ring, for @count descriptors with a buffer each from @area on. */
void nic_place_ring(struct nic *nic, u64 area, u32 count, u64 nonce)
{
	u64 nr_pages = ring_area_size(count) / RING_PAGE_SIZE;
	u64 wanted = ring_descriptor_pages(count), buffers = 0, piece;
	struct ring_page *pages = must_be_memory(calloc(nr_pages, sizeof(*pages)));
	u64 *pfns = must_be_memory(calloc(nic->size / RING_PAGE_SIZE, sizeof(*pfns)));
	struct ring *ring = nic->ring;

	nic_read_pfns(nic, pfns);
	for (u64 i = 0; i < nr_pages; i++) {
		pages[i].page = area / RING_PAGE_SIZE + i;
		pages[i].pfn = pfns[pages[i].page];
	}
	qsort(pages, nr_pages, sizeof(*pages), by_pfn);
	piece = find_piece(pages, nr_pages, wanted);

	ring->nonce = nonce;
	ring->area = area;
	ring->count = count;
	ring->descriptors_pfn = pages[piece].pfn;
	for (u64 i = 0; i < nr_pages; i++) {
		if (i >= piece && i < piece + wanted)
			ring->descriptor_page[i - piece] = pages[i].page;
		else
			ring->buffer_page[buffers++] = pages[i];
	}
	for (u32 i = 0; i < count; i++)
		give_to_device(nic, i);
	free(pfns);
	free(pages);
}

/* The kernel turned bus mastering off, so that nothing of the device can be going on. */
bool nic_was_stopped(const struct nic *nic)
{
	u16 command;

	must(vfio_config_read(nic->device, PCI_COMMAND, &command, sizeof(command)));
	return !(command & PCI_COMMAND_MASTER);
}

/* Memory space and bus mastering; what the user of a device turns on. */
void nic_enable(const struct nic *nic)
{
	u16 command;

	must(vfio_config_read(nic->device, PCI_COMMAND, &command, sizeof(command)));
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	must(vfio_config_write(nic->device, PCI_COMMAND, &command, sizeof(command)));
}

/* From here on the device writes whatever comes. */
void nic_start(struct nic *nic)
{
	nic_enable(nic);
	must(igb_reset(&nic->igb));
	must(igb_link_up(&nic->igb));
	igb_set_scratch(&nic->igb, SCRATCH);
	nic->igb.count = nic->ring->count;
	igb_rx_start(&nic->igb, ring_descriptors_pa(nic->ring));
	/* Head equal to tail is an empty ring, so one descriptor is never used. */
	nic->ring->tail = nic->ring->count - 1;
	igb_rx_set_tail(&nic->igb, nic->ring->tail);
}

/*
 * The guest has no way to the device's registers: it says in the ring how far
 * it has refilled it, and this thread passes that on.
 */
static void *ring_bell(void *argument)
{
	struct nic *nic = argument;

	while (READ_ONCE(nic->bell_rings)) {
		u32 tail = READ_ONCE(nic->ring->tail);

		if (tail != nic->tail) {
			igb_rx_set_tail(&nic->igb, tail);
			nic->tail = tail;
		}
		poll_pause();
	}
	return NULL;
}

void nic_start_bell(struct nic *nic)
{
	nic->tail = igb_rx_tail(&nic->igb);
	nic->bell_rings = true;
	must(-pthread_create(&nic->bell, NULL, ring_bell, nic));
}

void nic_stop_bell(struct nic *nic)
{
	if (!nic->bell_rings)
		return;
	WRITE_ONCE(nic->bell_rings, false);
	must(-pthread_join(nic->bell, NULL));
}

/* True when the guest sees another frame within the bound. */
bool nic_gets_frames(const struct nic *nic)
{
	static bool silent;
	u64 before = READ_ONCE(nic->ring->frames);
	/* Where DMA has ended it is not waited for again and again. */
	struct deadline deadline = deadline_in_ms(silent ? 10 : FRAME_MS);

	while (READ_ONCE(nic->ring->frames) == before) {
		if (deadline_passed(deadline)) {
			silent = true;
			return false;
		}
		poll_pause();
	}
	return true;
}

/* Returns when the guest has read what is there: it reads a frame in much less time. */
void nic_wait_idle(const struct nic *nic)
{
	struct deadline idle = deadline_in_ms(IDLE_MS);
	u64 frames = READ_ONCE(nic->ring->frames);

	while (!deadline_passed(idle)) {
		poll_pause();
		if (READ_ONCE(nic->ring->frames) == frames)
			continue;
		frames = READ_ONCE(nic->ring->frames);
		idle = deadline_in_ms(IDLE_MS);
	}
}

void nic_report(const struct nic *nic)
{
	igb_report(&nic->igb, nic->bdf);
	report_vfio_config(nic->device);
}
