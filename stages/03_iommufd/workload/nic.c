// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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
/* As far up as a guest of an emulated CPU has addresses: they are 40 bits wide. */
#define IOVA_OF_GUEST (1ull << 39)

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

	if (base)
		return base;
	base = param_u64("guest", 0) ? IOVA_OF_GUEST : IOVA_ABOVE_RAM;
	if (param_control("iova-in-ram"))
		base = IOVA_IN_RAM;
	return base;
}

u64 chunk_iova(const struct nic *nic, u32 chunk)
{
	return reader_chunk_iova(nic->reader, chunk);
}

int nic_map_chunk(const struct nic *nic, u32 ioas, u32 chunk, u64 from)
{
	return iommufd_map_file(nic->iommufd, ioas, nic->memfd, BUFFERS + from * CHUNK, CHUNK,
				chunk_iova(nic, chunk));
}

int nic_map_read_only(const struct nic *nic, u32 ioas)
{
	return iommufd_map_file_read_only(nic->iommufd, ioas, nic->memfd, 0, RING_PAGE_SIZE,
					  READ_ONLY_IOVA);
}

/* Two pages that are not neighbours in the file, at IOVAs that are: two areas of a page each. */
void nic_map_apart(const struct nic *nic, u32 ioas)
{
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, APART_FIRST, RING_PAGE_SIZE,
			      APART_IOVA));
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, APART_SECOND, RING_PAGE_SIZE,
			      APART_IOVA + RING_PAGE_SIZE));
}

static void map_canary(const struct nic *nic, u32 ioas)
{
	if (param_control("canary-mapped") && nic->canary >= 0)
		must(iommufd_map_file(nic->iommufd, ioas, nic->canary, 0, RING_PAGE_SIZE,
				      nic->reader->canary));
}

static int map_piece(const struct nic *nic, u32 ioas, u32 chunk, u64 at, u64 length)
{
	return iommufd_map_file(nic->iommufd, ioas, nic->memfd, BUFFERS + chunk * CHUNK + at,
				length, chunk_iova(nic, chunk) + at);
}

/* One after the other, and they meet at @cut. */
int nic_map_in_two(const struct nic *nic, u32 ioas, u32 chunk, u64 cut)
{
	return map_piece(nic, ioas, chunk, 0, cut) ?:
	       map_piece(nic, ioas, chunk, cut, CHUNK - cut);
}

static void map_all_but_first(const struct nic *nic, u32 ioas)
{
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, BUFFERS, IOVA));
	for (u32 i = 1; i < CHUNKS; i++)
		must(nic_map_chunk(nic, ioas, i, i));
	nic_map_apart(nic, ioas);
	map_canary(nic, ioas);
}

/* The first chunk in halves: wherever its memory is, there is no large page in the page table. */
void nic_map_all(const struct nic *nic, u32 ioas)
{
	map_all_but_first(nic, ioas);
	must(nic_map_in_two(nic, ioas, 0, CHUNK / 2));
}

/*
 * The same, and what has become read-only since; the first chunk in other pieces: it is the memory
 * that counts, and not how it is mapped.
 */
void nic_map_all_again(const struct nic *nic, u32 ioas)
{
	map_all_but_first(nic, ioas);
	must(nic_map_in_two(nic, ioas, 0, CHUNK / 4));
	if (nic->reader->read_only)
		must(nic_map_read_only(nic, ioas));
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
	nic->reader->iova = IOVA;
	nic->reader->count = COUNT;
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
		reader_refill(nic->memory, i);
	nic->igb.count = COUNT;
	igb_rx_start(&nic->igb, IOVA + DESCRIPTORS);
	igb_rx_set_tail(&nic->igb, descriptors);
}

/* Whatever makes a device that nobody preserved write, it must not get anywhere. */
void nic_force_mastering(const char *bdf)
{
	char path[128];
	u16 command;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = must(sys(open(path, O_RDWR | O_CLOEXEC)));
	must(sys(pread(fd, &command, sizeof(command), PCI_COMMAND)));
	fact("other.command", "0x%x", command);
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	must(sys(pwrite(fd, &command, sizeof(command), PCI_COMMAND)));
	close(fd);
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

/* Control frame-corrupted: one bit of one frame, in what the CRC alone protects. */
static void corrupt_a_frame(struct nic *nic)
{
	u32 next = nic->reader->next;
	static bool corrupted;

	if (corrupted || param_side() != SIDE_INCOMING || !param_control("frame-corrupted") ||
	    !(reader_descriptor(nic->memory, next)->wb.status & IGB_RX_DONE))
		return;
	reader_frame(nic->memory, next)->sent_ns ^= 1;
	corrupted = true;
}

/* True when there was a frame; it is checked, and its buffer is used again. */
static bool read_frame(struct nic *nic)
{
	int index;

	corrupt_a_frame(nic);
	index = nic->guest ? -1 : reader_take(nic->memory);
	if (index < 0)
		return false;
	if (param_control("tail-left") && param_side() == SIDE_INCOMING)
		return true;
	igb_rx_set_tail(&nic->igb, index);
	nic->reader->doorbells++;
	return true;
}

/* Returns when all that has come is read. */
void read_all(struct nic *nic)
{
	struct deadline deadline = deadline_in_ms(FRAMES_MS);

	while (read_frame(nic))
		;
	while (nic->guest && READ_ONCE(nic->reader->next) != igb_rx_head(&nic->igb)) {
		must_be(!deadline_passed(deadline), "the guest is at %u", nic->reader->next);
		poll_pause();
	}
}

static u64 reader_frames(const struct nic *nic)
{
	return READ_ONCE(nic->reader->frames);
}

u64 descriptors_read(const struct nic *nic)
{
	return reader_frames(nic) + READ_ONCE(nic->reader->missing);
}

/* The host takes a long silence for a dead machine. */
static void tell_now_and_then(struct deadline *next)
{
	if (!deadline_passed(*next))
		return;
	dialogue_line("# at reading");
	*next = deadline_in_ms(TELL_MS);
}

void read_until(struct nic *nic, u64 descriptors)
{
	struct deadline deadline = deadline_in_ms(FRAMES_MS), tell = deadline_in_ms(TELL_MS);

	while (descriptors_read(nic) < descriptors) {
		if (read_frame(nic))
			continue;
		must_be(!deadline_passed(deadline), "%llu of %llu frames", descriptors_read(nic),
			descriptors);
		tell_now_and_then(&tell);
		poll_pause();
	}
}

void read_frames(struct nic *nic, u64 wanted)
{
	read_until(nic, descriptors_read(nic) + wanted);
}

/* True when there are @wanted more within the bound. */
bool frames_come(struct nic *nic, u64 wanted)
{
	struct deadline deadline = deadline_in_ms(FRAME_MS);
	u64 until = reader_frames(nic) + wanted;

	while (reader_frames(nic) < until) {
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

	while (reader_frames(nic) < before + COUNT + AGAIN_FRAMES && frames_come(nic, 1))
		tell_now_and_then(&tell);
}

void read_while(struct nic *nic, bool (*goes_on)(int argument), int argument)
{
	struct deadline tell = deadline_in_ms(TELL_MS);

	while (goes_on(argument)) {
		frames_come(nic, 1);
		tell_now_and_then(&tell);
	}
}
