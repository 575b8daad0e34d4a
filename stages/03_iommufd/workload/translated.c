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
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "assigned.h"
#include "evidence.h"
#include "guest_ram.h"
#include "hwpt.h"
#include "iommufd.h"
#include "aborted.h"
#include "release.h"
#include "reuse.h"
#include "rules.h"
#include "taken_over.h"
#include "taker.h"
#include "vfio.h"

#define DEVICE "0000:01:00.0"
#define OTHER_DEVICE "0000:02:00.0"

/*
 * Of the other device, which nobody refills: enough for 25 s. When it is blocked
 * each of those that are left faults several times, all at once.
 */
#define OTHER_DESCRIPTORS 512

#define WARM_UP_FRAMES 200

/* Frames that have to fault after an unmap, and to land after a map. */
#define PROBE_FRAMES 50
/* Frames that may come before the unmap is done: a quarter of a second. */
#define UNMAP_FRAMES 256

#define LARGE_PAGE (2ull << 20)
#define LARGE_IOVA (8ull << 40)

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
	fact("reader.who", "%s", nic->guest ? "guest" : "program");
	fact("reader.doorbells", "%llu", nic->reader->doorbells);
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

static bool test(const char *name)
{
	char value[32];

	return param_get("test", value, sizeof(value)) && !strcmp(value, name);
}

/* The outgoing side */

/* The same kind of device, used in the same way, but never preserved. */
static void start_other(struct nic *other)
{
	nic_new_memory(other);
	nic_open(other);
	nic_start(other, OTHER_DESCRIPTORS);
}

/* True when the HWPT can be handed over; a kernel that cannot do that is used all the same. */
static bool mark(const struct nic *nic)
{
	int ret;

	if (param_control("hwpt-not-marked"))
		return false;
	ret = iommufd_hwpt_mark(nic->iommufd, nic->hwpt, TOKEN_HWPT);
	fact("mark", "%d", ret);
	must_be(!ret || ret == -ENOTTY, "%s", errno_name(ret));
	return !ret;
}

/* All that was preserved is as before when the session is closed. */
static bool abort_once(struct nic *nic, int luo)
{
	int session = must(luo_create_session(luo, SESSION));

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, nic->canary, TOKEN_CANARY));
	must(luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD));
	must(luo_preserve_fd(session, nic->device, TOKEN_DEVICE));
	close(session);
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, RING_PAGE_SIZE, EXTRA_IOVA));
	must(iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, RING_PAGE_SIZE));
	/* What came before shows nothing. */
	read_all(nic);
	return frames_come(nic, 20);
}

static void abort_repeatedly(struct nic *nic, int luo)
{
	u64 times = param_u64("aborts", 10), silent = 0;

	if (param_control("receiver-off"))
		igb_rx_enable(&nic->igb, false);
	aborted_remember();
	for (u64 i = 0; i < times; i++)
		silent += !abort_once(nic, luo);
	aborted_report();
	if (param_control("receiver-off"))
		igb_rx_enable(&nic->igb, true);
	fact("aborts.closed", "%llu times, %llu silent", times, silent);
}

/* True when all of it is in the session, which stays open: closing it gives all back. */
static bool preserve(const struct nic *nic, int luo)
{
	int session = must(luo_create_session(luo, SESSION)), ret;

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, nic->canary, TOKEN_CANARY));
	assigned_preserve(nic, session);
	if (!param_lacks_something())
		rule_of_order(nic, session);
	ret = luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD);
	fact("preserve.iommufd", "%d", ret);
	if (param_control("device-not-preserved"))
		return false;
	ret = luo_preserve_fd(session, nic->device, TOKEN_DEVICE);
	fact("preserve.device", "%d", ret);
	return !ret;
}

static void preserve_and_load(struct nic *nic, int luo)
{
	u32 head = igb_rx_head(&nic->igb);

	if (preserve(nic, luo) && !param_lacks_something())
		rules_of_preserved(nic);
	report_progress(nic, "preserve.frames", head);
	fact_counter("preserved", read_counter());
	read_frames(nic, WARM_UP_FRAMES);
	head = igb_rx_head(&nic->igb);
	must(kexec_load_incoming());
	nic_goes_on(nic);
	report_progress(nic, "load.frames", head);
	report_leaks();
	fact_counter("loaded", read_counter());
	read_frames(nic, WARM_UP_FRAMES);
	read_all(nic);
	/* From here on the ring goes unread. */
	assigned_pause(nic);
	fact_counter("unread", read_counter());
}

static int before_kexec(void)
{
	static struct nic nic = { .bdf = DEVICE }, other = { .bdf = OTHER_DEVICE, .canary = -1 };
	int luo = luo_must_open();

	iommufd_allow_no_remapping();
	report_iommu_pages("iommu_pages.before");
	nic_new_memory(&nic);
	/* The last chunk, which the page table has as a large page, too. */
	ram_collapse(nic.memfd, MEMORY_SIZE, MEMORY_SIZE - CHUNK);
	canary_new(&nic);
	nic_open(&nic);
	nic_start(&nic, COUNT - 1);
	start_other(&other);
	if (param_u64("guest", 0))
		assigned_start(&nic);
	fact("hwpt", "%u", nic.hwpt);
	report_ring("ring.iova", "ring.count");
	report_ring("other.ring.iova", "other.ring.count");
	await("traffic");
	read_frames(&nic, WARM_UP_FRAMES);
	report(&nic, "warm_up");

	rules_of_marking(&nic, luo);
	if (mark(&nic)) {
		rules_of_marked(&nic, luo);
		abort_repeatedly(&nic, luo);
		rules_of_late_refusal(&nic, &other, luo);
	}
	preserve_and_load(&nic, luo);
	if (param_lacks_something())
		ktap_skip_rest(NOT_PROMISED);
	unmap_some_descriptors(&nic);
	nic.reader->pfns = digest_pfns(&nic);
	report_pins("pins");
	report_iommu_pages("iommu_pages");
	report(&nic, "outgoing");
	report_reader(&nic);
	igb_report(&nic.igb, nic.bdf);
	report_vfio_config(nic.device);
	await("kho-reboot");
	await("snapshot-outgoing");
	return leave_kernel();
}

/* The incoming side */

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
	nic->canary = retrieve_fd(session, TOKEN_CANARY, "retrieve.canary");
	nic->iommufd = retrieve_fd(session, TOKEN_IOMMUFD, "retrieve.iommufd");
	rule_of_incoming(nic);
	must(pci_driver_bind(nic->bdf, "vfio-pci"));
	nic->device = retrieve_fd(session, TOKEN_DEVICE, "retrieve.device");
	fact_counter("retrieved", read_counter());
	return nic->memfd >= 0 && nic->canary >= 0 && nic->iommufd >= 0 && nic->device >= 0 &&
	       assigned_retrieve(nic, session);
}

static int bind(struct nic *nic)
{
	int ret;

	rules_of_retrieved(nic);
	ret = vfio_bind_id(nic->device, nic->iommufd, &nic->dev_id);
	fact("bind.device", "%d", ret);
	return ret ?: vfio_bar_map(nic->device, 0, IGB_BAR0_SIZE, (void **)&nic->igb.bar0);
}

/* In a mapping of its own: a large page wants an address that is a multiple of its size. */
static int collapse(const struct nic *nic)
{
	u8 *memory = ram_map(nic->memfd, MEMORY_SIZE);
	int ret = collapse_memory(memory, MEMORY_SIZE);

	must(sys(munmap(memory, MEMORY_SIZE)));
	return ret;
}

/*
 * What was tried wrongly has left neither pins nor a trace in the page table. False
 * in the control whose memory is no more where the device has it: it must not go on.
 */
static bool try_wrongly(struct nic *nic, int session)
{
	rules_of_bound(nic, session);
	/* Where pages move, the device would write into whatever comes in their place. */
	if (param_control("pin-patch-off"))
		await("quiet");
	report_pins("pins.before");
	compact_memory();
	fact("collapse", "%d", collapse(nic));
	report_place(nic, "compacted.retrieved");
	if (param_control("pin-patch-off"))
		return false;
	rules_of_restore(nic);
	report_pins("pins.wrong");
	await("snapshot-refused");
	return true;
}

/* True when the page table that the device has been using is an HWPT of this kernel. */
static bool restore(struct nic *nic, int session)
{
	int ret;

	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	nic_map_all_again(nic, nic->ioas);
	ret = iommufd_hwpt_restore(nic->iommufd, nic->dev_id, nic->ioas, TOKEN_HWPT);
	fact("restore.hwpt", "%d", ret < 0 ? ret : 0);
	rule_of_right_restore(nic, ret);
	if (ret < 0)
		return false;
	nic->hwpt = ret;
	rules_of_restored(nic, session);
	ret = vfio_attach(nic->device, nic->hwpt);
	fact("attach.device", "%d", ret);
	if (ret < 0)
		return false;
	fact_counter("adopted", read_counter());
	report_pins("pins.restored");
	report_iommu_pages("iommu_pages.adopted");
	report_secondary_pages("secondary_pages.adopted");
	rules_of_adopted(nic);
	await("snapshot-adopted");
	return true;
}

/* True when the device is this process's again, with all that it was doing. */
static bool take_over(struct nic *nic, int session)
{
	if (!retrieve(nic, session) || bind(nic))
		return false;
	nic_map_memory(nic);
	nic->igb.count = COUNT;
	igb_report(&nic->igb, nic->bdf);
	report_vfio_config(nic->device);
	report(nic, "incoming.found");
	return try_wrongly(nic, session) && restore(nic, session);
}

/* All that came during the gap is in the ring. */
static void catch_up(struct nic *nic)
{
	report(nic, "adopted");
	assigned_go_on(nic);
	read_all(nic);
	fact_counter("caught_up", read_counter());
	report(nic, "caught_up");
	read_frames(nic, WARM_UP_FRAMES);
	canary_check(nic);
}

/*
 * What this kernel maps and unmaps is what the device sees. The frames are some
 * more, which are not among those that have to be there.
 */
/*
 * What was taken over maps as any other: a page that the device may only read, and, where there is
 * memory in one piece for it, a large page.
 */
static void map_otherwise(const struct nic *nic)
{
	int memfd = must(sys(memfd_create("large", MFD_CLOEXEC))), large, read_only;
	u8 *memory;

	must(sys(ftruncate(memfd, LARGE_PAGE)));
	memory = ram_map(memfd, LARGE_PAGE);
	memset(memory, 1, LARGE_PAGE);
	fact("map.large", "%d", collapse_memory(memory, LARGE_PAGE));
	large = iommufd_map_file(nic->iommufd, nic->ioas, memfd, 0, LARGE_PAGE, LARGE_IOVA);
	read_only = iommufd_map_file_read_only(nic->iommufd, nic->ioas, memfd, 0, RING_PAGE_SIZE,
					       EXTRA_IOVA);
	fact("map.otherwise", "%d and %d", large, read_only);
	must(sys(munmap(memory, LARGE_PAGE)));
	close(memfd);
}

static void change_mapping(struct nic *nic)
{
	u64 first, frames, missing;
	u32 chunk;

	fact("again.first", "%llu", nic->reader->sequence);
	await("traffic-again");
	reuse_unmapped(nic);
	missing = nic->reader->missing;
	chunk = nic->reader->next / CHUNK_DESCRIPTORS + 1;
	first = descriptors_read(nic) + chunk * CHUNK_DESCRIPTORS - nic->reader->next;
	/*
	 * It must not be reached before it is unmapped. The one after it may be
	 * the one that is written to now, which has to be left first.
	 */
	if (first < descriptors_read(nic) + UNMAP_FRAMES) {
		read_until(nic, first);
		first += CHUNK_DESCRIPTORS;
		chunk++;
	}
	chunk %= CHUNKS;
	fact("unmap.first", "%llu", nic->reader->sequence);
	if (!param_control("unmap-left-out"))
		fact("unmap", "%d",
		     iommufd_unmap(nic->iommufd, nic->ioas, chunk_iova(nic, chunk), CHUNK));
	fact("unmap.iova", "0x%llx", chunk_iova(nic, chunk));
	fact("unmap.length", "0x%llx", CHUNK);
	await("snapshot-unmapped");
	read_until(nic, first + PROBE_FRAMES);
	missing = READ_ONCE(nic->reader->missing) - missing;
	fact("unmap.missing", "%llu of %llu", missing, descriptors_read(nic) - first);
	if (!param_control("unmap-left-out") && !param_control("map-left-out"))
		fact("map", "%d", nic_map_chunk(nic, nic->ioas, chunk, chunk));
	if (!param_control("map-left-out"))
		map_otherwise(nic);
	await("snapshot-mapped");
	/* Those that came before the map are in the ring all the same. */
	fact("map.landing", "%d", frames_come(nic, 1));
	frames = nic->reader->frames;
	if (frames_come(nic, PROBE_FRAMES))
		fact("map.landed", "%llu", nic->reader->frames - frames);
	release_translation(nic);
	await("silence-again");
}

/* FINISH, and the proof that the device is this kernel's for good. */
static int finish(struct nic *nic, int luo, int session, u64 before)
{
	int hog, ret = luo_finish(session);

	fact("finish", "%d", ret);
	/* What is mapped stays as it is then, for ever. */
	if (ret < 0) {
		await("silence");
		return 0;
	}
	fact_counter("finished", read_counter());
	hog = hog_start();
	read_frames(nic, WARM_UP_FRAMES);
	report(nic, "finished");
	if (test("again") && ++nic->reader->kexecs < 2)
		return preserve_again(nic, luo);
	rule_of_another_update(nic, luo);
	go_round(nic, before);
	read_while(nic, hog_goes_on, hog);
	report_place(nic, "compacted.finished");
	await("snapshot-finished");
	await("silence");
	read_all(nic);
	report(nic, "end");
	report_reader(nic);
	/* Cleared when it is read, so it is read once, here. */
	fact("device.good_packets", "%u", igb_rx_good_packets(&nic->igb));
	if (!param_control("tail-left"))
		change_mapping(nic);
	assigned_end(nic);
	if (!param_control("tail-left"))
		release_device(nic);
	fact("mem.total_kb_at_end", "%llu", meminfo_kb("MemTotal"));
	return 0;
}

static int after_kexec(void)
{
	static struct nic nic = { .bdf = DEVICE };
	int luo = luo_must_open(), session;
	u64 before;

	iommufd_allow_no_remapping();
	report_iommu_pages("iommu_pages.boot");
	await("snapshot-booted");
	if (!param_control("other-left"))
		nic_force_mastering(OTHER_DEVICE);
	if (taker_is_killed()) {
		kill_device_taker(nic.bdf, luo);
		await("silence");
		return 0;
	}
	session = retrieve_session(luo);
	if (param_control("nothing-retrieved")) {
		fact("finish", "%d", luo_finish(session));
		report_iommu_pages("iommu_pages.finished");
		await("snapshot-finished");
		await("silence");
		return 0;
	}
	if (session < 0 || !take_over(&nic, session)) {
		if (param_lacks_something())
			ktap_skip_rest(NOT_PROMISED);
		await("silence");
		return 0;
	}
	before = nic.reader->frames;
	catch_up(&nic);
	return finish(&nic, luo, session, before);
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
	.tests = { [SIDE_OUTGOING] = RULES_OUTGOING, [SIDE_INCOMING] = RULES_INCOMING },
};
