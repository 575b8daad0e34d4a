// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 3, set-up (a): a device behind an IOMMU goes on writing into a memfd, at
 * addresses that mean nothing without translation, while the kernel is
 * exchanged. Both sides of the kexec are in this file.
 *
 * There is no guest here yet: the ring is read by this program.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "hwpt.h"
#include "igb.h"
#include "iommufd.h"
#include "ring.h"
#include "vfio.h"

#define DEVICE "0000:01:00.0"
#define OTHER_DEVICE "0000:02:00.0"
#define SESSION "stage3"

enum token {
	TOKEN_RAM = 1,
	TOKEN_IOMMUFD,
	TOKEN_DEVICE,
	TOKEN_CANARY,
	TOKEN_EXTRA,
};

#define TOKEN_HWPT 0x4000

/*
 * The memory: a page for the reader's state, the descriptors, and the buffers in
 * chunks, each an area of its own in the IOAS.
 */
#define COUNT ring_count()
#define MAX_COUNT 32768u
#define DESCRIPTORS RING_PAGE_SIZE
#define CHUNK (2ull << 20)
#define CHUNKS (COUNT * RING_BUFFER_SIZE / CHUNK)
#define CHUNK_DESCRIPTORS (CHUNK / RING_BUFFER_SIZE)
#define BUFFERS CHUNK
#define MEMORY_SIZE (BUFFERS + CHUNKS * CHUNK)

/* Above all RAM there is, and where nothing but a page table leads anywhere. */
#define IOVA iova_base()
#define IOVA_ABOVE_RAM (1ull << 40)
#define IOVA_IN_RAM (256ull << 20)
/* Chunks are not next to each other, so that each has page tables of its own. */
#define CHUNK_STRIDE (3 * CHUNK)

/*
 * Descriptors that lead nowhere: from 0.8 s after the reader's last frame on, one
 * each quarter of a second; the kexec takes 2 s and more. The IOVA is the address
 * of a page of real memory.
 */
#define RATE param_u64("rate", 1000)
#define POISON_FIRST (RATE * 4 / 5)
#define POISON_STEP (RATE / 4)
#define POISON_COUNT 4
#define CANARY 0xca

/*
 * Of the other device, which nobody refills: enough for 25 s. When it is blocked
 * each of those that are left faults several times, all at once.
 */
#define OTHER_DESCRIPTORS 512

/* One page of it is not what the IOAS has pinned. */
#define EXTRA_SIZE (16 * RING_PAGE_SIZE)
#define EXTRA_IOVA (3ull << 40)

#define WARM_UP_FRAMES 200
#define FRAMES_MS 60000
/* A frame comes every millisecond or two; the bound is for a host that is busy. */
#define FRAME_MS 1000
#define TELL_MS 5000

/* Frames that have to fault after an unmap, and to land after a map. */
#define PROBE_FRAMES 50
#define AGAIN_FRAMES 64

/* Written to a register that nothing uses; a reset would clear it. */
#define SCRATCH 0x5afe1234

/* What the reader knows, in the memory that is handed over. */
struct reader {
	u64 nonce;
	u32 next;
	u32 wrong_descriptors;
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

static u32 ring_count(void)
{
	static u32 count;

	if (!count) {
		count = param_u64("ring", 8192);
		must_be(count > CHUNK_DESCRIPTORS && count <= MAX_COUNT && count % CHUNK_DESCRIPTORS == 0,
			"stage.ring=%u", count);
	}
	return count;
}

static u64 iova_base(void)
{
	static u64 base;

	if (!base)
		base = param_control("iova-in-ram") ? IOVA_IN_RAM : IOVA_ABOVE_RAM;
	return base;
}

static u64 chunk_iova(u32 chunk)
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

static int map_chunk(const struct nic *nic, u32 ioas, u32 chunk, u64 from)
{
	return iommufd_map_file(nic->iommufd, ioas, nic->memfd, BUFFERS + from * CHUNK, CHUNK,
				chunk_iova(chunk));
}

static void map_all(const struct nic *nic, u32 ioas)
{
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, BUFFERS, IOVA));
	for (u32 i = 0; i < CHUNKS; i++)
		must(map_chunk(nic, ioas, i, i));
}

static void give_to_device(struct nic *nic, u32 index)
{
	volatile union igb_rx_desc *desc = descriptor(nic, index);

	desc->read.packet = buffer_iova(index);
	desc->read.header = 0;
}

static void map_memory(struct nic *nic)
{
	nic->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, nic->memfd, 0);
	must_be(nic->memory != MAP_FAILED, "%s", errno_name(-errno));
	nic->reader = (void *)nic->memory;
}

static void open_device(struct nic *nic)
{
	must(pci_driver_bind(nic->bdf, "vfio-pci"));
	nic->iommufd = must(iommufd_open());
	nic->device = must(vfio_cdev_open(nic->bdf));
	must(vfio_bind_id(nic->device, nic->iommufd, &nic->dev_id));
	must(vfio_bar_map(nic->device, 0, IGB_BAR0_SIZE, (void **)&nic->igb.bar0));
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	map_all(nic, nic->ioas);
	nic->hwpt = must(iommufd_hwpt_alloc(nic->iommufd, nic->dev_id, nic->ioas));
	must(vfio_attach(nic->device, nic->hwpt));
}

/* @descriptors: how many of them the device may use. */
static void start_device(struct nic *nic, u32 descriptors)
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

static bool is_frame(const struct nic *nic, const struct frame *frame)
{
	return frame->magic == FRAME_MAGIC && frame->nonce == nic->reader->nonce;
}

/* True when there was a frame; it is checked, and its buffer is used again. */
static bool read_frame(struct nic *nic)
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

static void read_frames(struct nic *nic, u64 wanted)
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
static bool frames_come(struct nic *nic, u64 wanted)
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

/* A result of its own for each misuse. */
#define RULES_OUTGOING 10
#define RULES_INCOMING 13

static void rule(const char *name, long ret, long expected)
{
	if (!ktap_ok(ret == expected, name))
		fact(name, "%ld", ret);
}

static void report_ring(const char *address_key, const char *count_key)
{
	fact(address_key, "0x%llx", IOVA + DESCRIPTORS);
	fact(count_key, "%u", COUNT);
}

static void report_reader(const struct nic *nic)
{
	fact("reader.frames", "%llu", nic->reader->frames);
	fact("reader.frames.lost", "%llu", nic->reader->lost);
	fact("reader.frames.damaged", "%llu", nic->reader->damaged);
	fact("reader.frames.missing", "%llu", nic->reader->missing);
}

/* How far the device has gone since its head was at @head. */
static void report_progress(const struct nic *nic, const char *key, u32 head)
{
	fact(key, "%u", (igb_rx_head(&nic->igb) + COUNT - head) % COUNT);
}

static void report(const struct nic *nic, const char *when)
{
	const struct reader *reader = nic->reader;

	fact(when, "frames=%llu lost=%llu damaged=%llu missing=%llu next=%u head=%u",
	     reader->frames, reader->lost, reader->damaged, reader->missing, reader->next,
	     igb_rx_head(&nic->igb));
}

static void new_memory(struct nic *nic)
{
	nic->memfd = must(sys(memfd_create("ram", MFD_CLOEXEC)));
	must(sys(ftruncate(nic->memfd, MEMORY_SIZE)));
	map_memory(nic);
	memset(nic->memory, 0, MEMORY_SIZE);
	nic->reader->nonce = param_nonce();
}

/* The same, but never preserved. */
static void start_other(void)
{
	static struct nic other = { .bdf = OTHER_DEVICE };

	new_memory(&other);
	open_device(&other);
	start_device(&other, OTHER_DESCRIPTORS);
}

/* Page tables, root and context tables of all devices. */
static void report_iommu_pages(const char *when)
{
	char line[128];
	FILE *file;

	file = must_be_memory(fopen("/proc/vmstat", "r"));
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "nr_iommu_pages ", 15))
			fact(when, "%llu", strtoull(line + 15, NULL, 10));
	fclose(file);
}

static bool test(const char *name)
{
	char value[32];

	return param_get("test", value, sizeof(value)) && !strcmp(value, name);
}

/* From /proc/self/status, in kB. */
static u64 status_kb(const char *key)
{
	char line[128];
	u64 kb = 0;
	FILE *file;

	file = must_be_memory(fopen("/proc/self/status", "r"));
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			kb = strtoull(line + strlen(key) + 1, NULL, 10);
	fclose(file);
	return kb;
}

static void report_pins(const char *when)
{
	fact(when, "VmPin=%llu VmLck=%llu", status_kb("VmPin"), status_kb("VmLck"));
}

/* Stands for where all pages are. */
static u64 digest_pfns(const struct nic *nic)
{
	const u64 pages = MEMORY_SIZE / RING_PAGE_SIZE;
	u64 *pfns = must_be_memory(calloc(pages, sizeof(u64))), digest = 0;

	for (u64 i = 0; i < pages; i++)
		(void)READ_ONCE(nic->memory[i * RING_PAGE_SIZE]);
	must(pagemap_read(nic->memory, pages, pfns));
	for (u64 i = 0; i < pages; i++)
		digest = digest * 1099511628211ull + pfns[i];
	free(pfns);
	return digest;
}

static void compact(const struct nic *nic, const char *when)
{
	compact_memory();
	fact(when, "%s", digest_pfns(nic) == nic->reader->pfns ? "in place" : "moved");
}

static u8 *map_canary(int memfd)
{
	u8 *canary = mmap(NULL, RING_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	must_be(canary != MAP_FAILED, "%s", errno_name(-errno));
	return canary;
}

/* If translation was off, even for a moment, frames would land in the canary. */
static void poison(struct nic *nic)
{
	for (u32 i = 0; i < POISON_COUNT; i++) {
		u64 index = (nic->reader->next + POISON_FIRST + i * POISON_STEP) % COUNT;

		descriptor(nic, index)->read.packet = nic->reader->canary;
	}
	fact("poison", "iova=0x%llx first=%llu", nic->reader->canary,
	     nic->reader->next + POISON_FIRST);
}

static int canary_new(struct nic *nic)
{
	int memfd = must(sys(memfd_create("canary", MFD_CLOEXEC)));
	u64 pfn;
	u8 *canary;

	must(sys(ftruncate(memfd, RING_PAGE_SIZE)));
	canary = map_canary(memfd);
	memset(canary, CANARY, RING_PAGE_SIZE);
	must(pagemap_read(canary, 1, &pfn));
	nic->reader->canary = pfn * RING_PAGE_SIZE;
	return memfd;
}

static void check_canary(const struct nic *nic, int memfd)
{
	u8 *canary = map_canary(memfd);
	u32 changed = 0;
	u64 pfn;

	for (u32 i = 0; i < RING_PAGE_SIZE; i++)
		changed += canary[i] != CANARY;
	must(pagemap_read(canary, 1, &pfn));
	fact("canary", "changed=%u moved=%d", changed,
	     pfn * RING_PAGE_SIZE != nic->reader->canary);
}

/* The file has another page there than the one that a device would write to. */
static void preserve_punched(struct nic *nic, int luo)
{
	int memfd = must(sys(memfd_create("extra", MFD_CLOEXEC))), session;
	u8 byte = 1;

	must(sys(ftruncate(memfd, EXTRA_SIZE)));
	must(iommufd_map_file(nic->iommufd, nic->ioas, memfd, 0, EXTRA_SIZE, EXTRA_IOVA));
	session = must(luo_create_session(luo, SESSION));
	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	rule("preserve_with_memory_elsewhere",
	     luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD), -ENOENT);
	close(session);
	must(sys(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			   3 * RING_PAGE_SIZE, RING_PAGE_SIZE)));
	must(sys(pwrite(memfd, &byte, 1, 3 * RING_PAGE_SIZE)));
	session = must(luo_create_session(luo, SESSION));
	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, memfd, TOKEN_EXTRA));
	rule("preserve_with_a_page_lost",
	     luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD), -EINVAL);
	close(session);
	must(iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, EXTRA_SIZE));
	close(memfd);
}

/* All that was preserved is as before when the session is closed. */
static bool abort_once(struct nic *nic, int luo, bool first)
{
	int session = must(luo_create_session(luo, SESSION)), ret;

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD));
	must(luo_preserve_fd(session, nic->device, TOKEN_DEVICE));
	ret = iommufd_hwpt_mark(nic->iommufd, nic->hwpt, TOKEN_HWPT);
	if (first)
		rule("mark_when_preserved", ret, -EBUSY);
	close(session);
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, RING_PAGE_SIZE, EXTRA_IOVA));
	must(iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, RING_PAGE_SIZE));
	return frames_come(nic, 20);
}

static void abort_repeatedly(struct nic *nic, int luo)
{
	u64 times = param_u64("aborts", 5), silent = 0;

	if (param_control("receiver-off"))
		igb_rx_enable(&nic->igb, false);
	for (u64 i = 0; i < times; i++)
		silent += !abort_once(nic, luo, !i);
	if (param_control("receiver-off"))
		igb_rx_enable(&nic->igb, true);
	fact("aborts.closed", "%llu times, %llu silent", times, silent);
}

/* What is refused as long as nothing is preserved. */
static void rules_of_marking(struct nic *nic, int luo)
{
	int session = must(luo_create_session(luo, SESSION));

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	rule("preserve_unmarked", luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD), -EINVAL);
	rule("mark_with_token_0", iommufd_hwpt_mark(nic->iommufd, nic->hwpt, 0), -EINVAL);
	rule("mark_an_ioas", iommufd_hwpt_mark(nic->iommufd, nic->ioas, TOKEN_HWPT), -ENOENT);
	close(session);
}

/* True when all of it is in the session, which stays open: closing it gives all back. */
static bool preserve(struct nic *nic, int luo, int canary)
{
	int session = must(luo_create_session(luo, SESSION)), ret;

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, canary, TOKEN_CANARY));
	rule("preserve_device_before_iommufd",
	     luo_preserve_fd(session, nic->device, TOKEN_DEVICE), -ENOENT);
	ret = luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD);
	fact("preserve.iommufd", "%d", ret);
	if (param_control("device-not-preserved"))
		return false;
	ret = luo_preserve_fd(session, nic->device, TOKEN_DEVICE);
	fact("preserve.device", "%d", ret);
	return !ret;
}

/* Does not return, but for a kernel that refuses. */
static int leave_kernel(void)
{
	if (param_control("firmware-reboot")) {
		dialogue_drain();
		return sys(reboot(RB_AUTOBOOT));
	}
	return kexec_reboot();
}

static int before_kexec(void)
{
	int luo = luo_must_open(), canary;
	struct nic nic = { .bdf = DEVICE };
	u32 head;

	report_iommu_pages("iommu_pages.before");
	new_memory(&nic);
	canary = canary_new(&nic);
	open_device(&nic);
	start_device(&nic, COUNT - 1);
	start_other();
	fact("hwpt", "%u", nic.hwpt);
	report_ring("ring.iova", "ring.count");
	report_ring("other.ring.iova", "other.ring.count");
	await("traffic");
	read_frames(&nic, WARM_UP_FRAMES);
	report(&nic, "warm_up");

	rules_of_marking(&nic, luo);
	if (!param_control("hwpt-not-marked")) {
		must(iommufd_hwpt_mark(nic.iommufd, nic.hwpt, TOKEN_HWPT));
		preserve_punched(&nic, luo);
		abort_repeatedly(&nic, luo);
	}
	head = igb_rx_head(&nic.igb);
	if (preserve(&nic, luo, canary)) {
		rule("unmap", iommufd_unmap(nic.iommufd, nic.ioas, chunk_iova(0), CHUNK), -EBUSY);
		rule("detach", vfio_detach(nic.device), -EBUSY);
		rule("destroy", iommufd_destroy(nic.iommufd, nic.hwpt), -EBUSY);
	}
	report_progress(&nic, "preserve.frames", head);
	fact_tsc("preserved", rdtsc());
	read_frames(&nic, WARM_UP_FRAMES);
	head = igb_rx_head(&nic.igb);
	must(kexec_load_incoming());
	report_progress(&nic, "load.frames", head);
	fact_tsc("loaded", rdtsc());
	read_frames(&nic, WARM_UP_FRAMES);
	if (test("poison") || param_control("descriptors-lead-nowhere"))
		poison(&nic);
	nic.reader->pfns = digest_pfns(&nic);
	report_pins("pins");
	report_iommu_pages("iommu_pages");
	report(&nic, "outgoing");
	report_reader(&nic);
	igb_report(&nic.igb, nic.bdf);
	await("snapshot-outgoing");
	return leave_kernel();
}

/* Each of them is a wrong idea of what is mapped, and is refused. */
static void wrong_restores(struct nic *nic)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	rule("restore_with_nothing_mapped",
	     iommufd_hwpt_restore(nic->iommufd, nic->dev_id, ioas, TOKEN_HWPT), -EINVAL);
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, BUFFERS, IOVA));
	for (u32 i = 0; i + 1 < CHUNKS; i++)
		must(map_chunk(nic, ioas, i, i));
	rule("restore_with_an_area_missing",
	     iommufd_hwpt_restore(nic->iommufd, nic->dev_id, ioas, TOKEN_HWPT), -EINVAL);
	must(map_chunk(nic, ioas, CHUNKS - 1, CHUNKS - 2));
	rule("restore_with_areas_swapped",
	     iommufd_hwpt_restore(nic->iommufd, nic->dev_id, ioas, TOKEN_HWPT), -EINVAL);
	rule("restore_unknown_token",
	     iommufd_hwpt_restore(nic->iommufd, nic->dev_id, ioas, TOKEN_HWPT + 1), -ENOENT);
	must(iommufd_destroy(nic->iommufd, ioas));
	ioas = must(iommufd_ioas_alloc(nic->iommufd));
	map_all(nic, ioas);
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, RING_PAGE_SIZE, 1ull << 41));
	rule("restore_with_an_area_more",
	     iommufd_hwpt_restore(nic->iommufd, nic->dev_id, ioas, TOKEN_HWPT), -EINVAL);
	rule("attach_an_ioas", vfio_attach(nic->device, ioas), -EBUSY);
	must(iommufd_destroy(nic->iommufd, ioas));
}

/*
 * What this kernel maps and unmaps is what the device sees. The frames are some
 * more, which are not among those that have to be there.
 */
static void change_mapping(struct nic *nic)
{
	u32 chunk = (nic->reader->next / CHUNK_DESCRIPTORS + 1) % CHUNKS;
	u32 skip = CHUNK_DESCRIPTORS - nic->reader->next % CHUNK_DESCRIPTORS;
	u64 frames, missing;

	fact("again.first", "%llu", nic->reader->sequence);
	await("traffic-again");
	if (!param_control("unmap-left-out"))
		fact("unmap", "%d",
		     iommufd_unmap(nic->iommufd, nic->ioas, chunk_iova(chunk), CHUNK));
	fact("unmap.iova", "0x%llx", chunk_iova(chunk));
	fact("unmap.length", "0x%llx", CHUNK);
	await("snapshot-unmapped");
	read_frames(nic, skip);
	missing = nic->reader->missing;
	read_frames(nic, PROBE_FRAMES);
	fact("unmap.missing", "%llu of %u", nic->reader->missing - missing, PROBE_FRAMES);
	if (!param_control("unmap-left-out") && !param_control("map-left-out"))
		fact("map", "%d", map_chunk(nic, nic->ioas, chunk, chunk));
	await("snapshot-mapped");
	/* Those that came before the map are in the ring all the same. */
	fact("map.landing", "%d", frames_come(nic, 1));
	frames = nic->reader->frames;
	if (frames_come(nic, PROBE_FRAMES))
		fact("map.landed", "%llu", nic->reader->frames - frames);
	await("silence-again");
}

/* Whatever makes a device that nobody preserved write, it must not get anywhere. */
static void let_other_go(void)
{
	char path[128];
	u16 command;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", OTHER_DEVICE);
	fd = must(sys(open(path, O_RDWR | O_CLOEXEC)));
	must(sys(pread(fd, &command, sizeof(command), PCI_COMMAND)));
	fact("other.command", "0x%x", command);
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	must(sys(pwrite(fd, &command, sizeof(command), PCI_COMMAND)));
	close(fd);
}

/* What was taken over can be handed over again; the HWPT is still marked. */
static int preserve_again(struct nic *nic, int luo)
{
	int session = must(luo_create_session(luo, "again"));

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, nic->canary, TOKEN_CANARY));
	must(luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD));
	must(luo_preserve_fd(session, nic->device, TOKEN_DEVICE));
	must(kexec_load_incoming());
	read_frames(nic, WARM_UP_FRAMES);
	report(nic, "outgoing.again");
	return kexec_reboot();
}

/* A file of the session, or -errno; said as @key either way. */
static int retrieve_fd(int session, u64 token, const char *key)
{
	int fd = luo_retrieve_fd(session, token);

	fact(key, "%d", fd < 0 ? fd : 0);
	return fd;
}

static int retrieve_session(int luo)
{
	int session = luo_retrieve_session(luo, "again");

	if (session < 0)
		session = luo_retrieve_session(luo, SESSION);
	fact("retrieve.session", "%d", session < 0 ? session : 0);
	return session;
}

/* True when there are the memory and all that leads the device to it. */
static bool retrieve(struct nic *nic, int session)
{
	nic->memfd = retrieve_fd(session, TOKEN_RAM, "retrieve.ram");
	nic->iommufd = retrieve_fd(session, TOKEN_IOMMUFD, "retrieve.iommufd");
	must(pci_driver_bind(nic->bdf, "vfio-pci"));
	nic->device = retrieve_fd(session, TOKEN_DEVICE, "retrieve.device");
	fact_tsc("retrieved", rdtsc());
	return nic->memfd >= 0 && nic->iommufd >= 0 && nic->device >= 0;
}

static int bind(struct nic *nic)
{
	int fd = must(iommufd_open()), ret;

	rule("bind_to_another_iommufd", vfio_bind(nic->device, fd), -EPERM);
	close(fd);
	ret = vfio_bind_id(nic->device, nic->iommufd, &nic->dev_id);
	fact("bind.device", "%d", ret);
	return ret ?: vfio_bar_map(nic->device, 0, IGB_BAR0_SIZE, (void **)&nic->igb.bar0);
}

/* True when the page table that the device has been using is an HWPT of this kernel. */
static bool restore(struct nic *nic, int session)
{
	int ret;

	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	map_all(nic, nic->ioas);
	ret = iommufd_hwpt_restore(nic->iommufd, nic->dev_id, nic->ioas, TOKEN_HWPT);
	fact("restore.hwpt", "%d", ret < 0 ? ret : 0);
	if (ret < 0)
		return false;
	nic->hwpt = ret;
	rule("restore_twice",
	     iommufd_hwpt_restore(nic->iommufd, nic->dev_id, nic->ioas, TOKEN_HWPT), -EBUSY);
	rule("finish_when_not_attached", luo_finish(session), -EBUSY);
	ret = vfio_attach(nic->device, nic->hwpt);
	fact("attach.device", "%d", ret);
	if (ret < 0)
		return false;
	fact_tsc("adopted", rdtsc());
	rule("unmap", iommufd_unmap(nic->iommufd, nic->ioas, chunk_iova(0), CHUNK), -EBUSY);
	rule("detach", vfio_detach(nic->device), -EBUSY);
	rule("destroy", iommufd_destroy(nic->iommufd, nic->hwpt), -EBUSY);
	return true;
}

/* Until descriptors are used again that were refilled in this kernel. */
static void go_round(struct nic *nic, u64 before)
{
	struct deadline tell = deadline_in_ms(TELL_MS);

	while (nic->reader->frames < before + COUNT + AGAIN_FRAMES && frames_come(nic, 1))
		tell_now_and_then(&tell);
}

static int after_kexec(void)
{
	int luo = luo_must_open(), session;
	struct nic nic = { .bdf = DEVICE };
	u64 before;

	report_iommu_pages("iommu_pages.boot");
	await("snapshot-booted");
	if (!param_control("other-left"))
		let_other_go();
	session = retrieve_session(luo);
	if (test("not-retrieved")) {
		fact("finish", "%d", luo_finish(session));
		report_iommu_pages("iommu_pages.finished");
		await("silence");
		return 0;
	}
	if (session < 0 || !retrieve(&nic, session) || bind(&nic)) {
		await("silence");
		return 0;
	}
	map_memory(&nic);
	nic.igb.count = COUNT;
	before = nic.reader->frames;
	igb_report(&nic.igb, nic.bdf);
	report(&nic, "incoming.found");
	rule("finish_when_not_restored", luo_finish(session), -EBUSY);
	report_pins("pins.before");
	compact(&nic, "compacted.retrieved");
	wrong_restores(&nic);
	report_pins("pins.wrong");
	if (!restore(&nic, session)) {
		await("silence");
		return 0;
	}
	report_pins("pins.restored");
	report_iommu_pages("iommu_pages.adopted");
	await("snapshot-adopted");
	report(&nic, "adopted");
	/* All that came during the gap is in the ring. */
	while (read_frame(&nic))
		;
	fact_tsc("caught_up", rdtsc());
	report(&nic, "caught_up");
	read_frames(&nic, WARM_UP_FRAMES);
	nic.canary = must(luo_retrieve_fd(session, TOKEN_CANARY));
	check_canary(&nic, nic.canary);
	fact("finish", "%d", luo_finish(session));
	fact_tsc("finished", rdtsc());
	read_frames(&nic, WARM_UP_FRAMES);
	report(&nic, "finished");
	compact(&nic, "compacted.finished");
	if (test("again") && ++nic.reader->kexecs < 2)
		return preserve_again(&nic, luo);
	go_round(&nic, before);
	await("snapshot-finished");
	await("silence");
	while (read_frame(&nic))
		;
	report(&nic, "end");
	report_reader(&nic);
	/* Cleared when it is read, so it is read once, here. */
	fact("device.good_packets", "%u", igb_rx_good_packets(&nic.igb));
	change_mapping(&nic);
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
	.tests = { [SIDE_OUTGOING] = RULES_OUTGOING, [SIDE_INCOMING] = RULES_INCOMING },
};
