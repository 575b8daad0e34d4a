// SPDX-License-Identifier: GPL-2.0-only
#include <sys/mman.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "hwpt.h"
#include "iommufd.h"
#include "nic.h"
#include "vfio.h"

#define MAX_COUNT 32768u

/* Above all RAM there is, and where nothing but a page table leads anywhere. */
#define IOVA_ABOVE_RAM (1ull << 40)
#define IOVA_IN_RAM (256ull << 20)
/* Chunks are not next to each other, so that each has page tables of its own. */
#define CHUNK_STRIDE (3 * CHUNK)

#define FRAMES_MS 60000
/* A frame comes every millisecond or two; the bound is for a host that is busy. */
#define FRAME_MS 1000
#define TELL_MS 5000
/* More than the whole ring, so that descriptors are used again that were refilled late. */
#define AGAIN_FRAMES 64

/* Written to a register that nothing uses; a reset would clear it. */
#define SCRATCH 0x5afe1234

u32 ring_count(void)
{
	static u32 count;

	if (!count) {
		count = param_u64("ring", 12288);
		must_be(count > CHUNK_DESCRIPTORS && count <= MAX_COUNT && count % CHUNK_DESCRIPTORS == 0,
			"stage.ring=%u", count);
	}
	return count;
}

u64 iova_base(void)
{
	static u64 base;

	if (!base)
		base = param_control("iova-in-ram") ? IOVA_IN_RAM : IOVA_ABOVE_RAM;
	return base;
}

u64 chunk_iova(u32 chunk)
{
	return IOVA + BUFFERS + chunk * CHUNK_STRIDE;
}

static u64 buffer_iova(u32 index)
{
	return chunk_iova(index / CHUNK_DESCRIPTORS) +
	       index % CHUNK_DESCRIPTORS * RING_BUFFER_SIZE;
}

static u8 *buffer(const struct nic *nic, u32 index)
{
	return nic->memory + BUFFERS + (u64)index * RING_BUFFER_SIZE;
}

static volatile union igb_rx_desc *descriptor(const struct nic *nic, u32 index)
{
	return (void *)(nic->memory + DESCRIPTORS + index * sizeof(union igb_rx_desc));
}

void descriptor_set_address(const struct nic *nic, u32 index, u64 iova)
{
	descriptor(nic, index)->read.packet = iova;
}

int nic_map_chunk(const struct nic *nic, u32 ioas, u32 chunk, u64 from)
{
	return iommufd_map_file(nic->iommufd, ioas, nic->memfd, BUFFERS + from * CHUNK, CHUNK,
				chunk_iova(chunk));
}

void nic_map_all(const struct nic *nic, u32 ioas)
{
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, BUFFERS, IOVA));
	for (u32 i = 0; i < CHUNKS; i++)
		must(nic_map_chunk(nic, ioas, i, i));
	if (param_control("canary-mapped") && nic->canary >= 0)
		must(iommufd_map_file(nic->iommufd, ioas, nic->canary, 0, RING_PAGE_SIZE,
				      nic->reader->canary));
}

static void give_to_device(struct nic *nic, u32 index)
{
	volatile union igb_rx_desc *desc = descriptor(nic, index);

	desc->read.packet = buffer_iova(index);
	desc->read.header = 0;
}

void nic_map_memory(struct nic *nic)
{
	nic->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, nic->memfd, 0);
	must_be(nic->memory != MAP_FAILED, "%s", errno_name(-errno));
	nic->reader = (void *)nic->memory;
}

void nic_new_memory(struct nic *nic)
{
	nic->memfd = must(sys(memfd_create("ram", MFD_CLOEXEC)));
	must(sys(ftruncate(nic->memfd, MEMORY_SIZE)));
	nic_map_memory(nic);
	memset(nic->memory, 0, MEMORY_SIZE);
	nic->reader->nonce = param_nonce();
}

void nic_open(struct nic *nic)
{
	must(pci_driver_bind(nic->bdf, "vfio-pci"));
	nic->iommufd = must(iommufd_open());
	nic->device = must(vfio_cdev_open(nic->bdf));
	must(vfio_bind_id(nic->device, nic->iommufd, &nic->dev_id));
	must(vfio_bar_map(nic->device, 0, IGB_BAR0_SIZE, (void **)&nic->igb.bar0));
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	nic_map_all(nic, nic->ioas);
	nic->hwpt = must(iommufd_hwpt_alloc(nic->iommufd, nic->dev_id, nic->ioas));
	must(vfio_attach(nic->device, nic->hwpt));
}

/* @descriptors: how many of them the device may use. */
void nic_start(struct nic *nic, u32 descriptors)
{
	u16 command;

	must(vfio_config_read(nic->device, PCI_COMMAND, &command, sizeof(command)));
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	must(vfio_config_write(nic->device, PCI_COMMAND, &command, sizeof(command)));
	must(igb_reset(&nic->igb));
	must(igb_link_up(&nic->igb));
	igb_set_scratch(&nic->igb, SCRATCH);
	for (u32 i = 0; i < COUNT; i++)
		give_to_device(nic, i);
	nic->igb.count = COUNT;
	igb_rx_start(&nic->igb, IOVA + DESCRIPTORS);
	igb_rx_set_tail(&nic->igb, descriptors);
}

/* True when the device uses another descriptor within the bound, whoever reads the ring. */
bool nic_goes_on(const struct nic *nic)
{
	struct deadline deadline = deadline_in_ms(FRAME_MS);
	u32 head = igb_rx_head(&nic->igb);

	while (igb_rx_head(&nic->igb) == head) {
		if (deadline_passed(deadline))
			return false;
		poll_pause();
	}
	return true;
}

static bool is_frame(const struct nic *nic, const struct frame *frame)
{
	return frame->magic == FRAME_MAGIC && frame->nonce == nic->reader->nonce;
}

/* True when there was a frame; it is checked, and its buffer is used again. */
bool read_frame(struct nic *nic)
{
	struct reader *reader = nic->reader;
	volatile union igb_rx_desc *desc = descriptor(nic, reader->next);
	struct frame *frame = (void *)buffer(nic, reader->next);

	if (!(desc->wb.status & IGB_RX_DONE))
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (!frame->magic || (is_frame(nic, frame) && frame->sequence < reader->sequence)) {
		/* Written back, but the buffer holds what it held before. */
		reader->missing++;
		reader->sequence++;
	} else if (!is_frame(nic, frame)) {
		reader->damaged++;
	} else {
		if (frame->sequence != reader->sequence)
			reader->lost += frame->sequence - reader->sequence;
		reader->sequence = frame->sequence + 1;
		reader->frames++;
	}
	give_to_device(nic, reader->next);
	igb_rx_set_tail(&nic->igb, reader->next);
	reader->next = (reader->next + 1) % COUNT;
	return true;
}

/* The host takes a long silence for a dead machine. */
static void tell_now_and_then(struct deadline *next)
{
	if (!deadline_passed(*next))
		return;
	dialogue_line("# at reading");
	*next = deadline_in_ms(TELL_MS);
}

void read_frames(struct nic *nic, u64 wanted)
{
	struct deadline deadline = deadline_in_ms(FRAMES_MS), tell = deadline_in_ms(TELL_MS);
	u64 until = nic->reader->frames + nic->reader->missing + wanted;

	while (nic->reader->frames + nic->reader->missing < until) {
		if (read_frame(nic))
			continue;
		must_be(!deadline_passed(deadline), "%llu of %llu frames",
			nic->reader->frames + nic->reader->missing, until);
		tell_now_and_then(&tell);
		poll_pause();
	}
}

/* True when there are @wanted more within the bound. */
bool frames_come(struct nic *nic, u64 wanted)
{
	struct deadline deadline = deadline_in_ms(FRAME_MS);
	u64 until = nic->reader->frames + wanted;

	while (nic->reader->frames < until) {
		if (read_frame(nic))
			continue;
		if (deadline_passed(deadline))
			return false;
		poll_pause();
	}
	return true;
}

/* Until descriptors are used again that were refilled since @before frames had come. */
void go_round(struct nic *nic, u64 before)
{
	struct deadline tell = deadline_in_ms(TELL_MS);

	while (nic->reader->frames < before + COUNT + AGAIN_FRAMES && frames_come(nic, 1))
		tell_now_and_then(&tell);
}
