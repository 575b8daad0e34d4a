// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 2: a device in no-IOMMU mode goes on writing into the RAM of a KVM
 * guest while the kernel under both is exchanged. Both sides of the kexec are
 * in this file.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "aborted.h"
#include "aborts.h"
#include "nic.h"
#include "report.h"
#include "races.h"
#include "rules.h"
#include "taken_over.h"
#include "taker.h"
#include "vfio.h"
#include "vm_state.h"

/*
 * One in eight of them goes wrong where a port's driver is not held, and is the last; on a busy host
 * it was none of 60.
 */
#define PROVOKED_RACES 400
/* Frames seen before anything is done with the session. */
#define WARM_UP_FRAMES 100
#define WARM_UP_MS 20000

/*
 * A ring goes round in count / rate seconds: 8 s for 8,192 descriptors at
 * 1,000 frames a second. The bound is for a host that is busy.
 */
#define WRAP_MS 60000
#define AGAIN_FRAMES 64
#define ANEW_MS 2000
#define TELL_MS 5000

static u32 ring_count(void)
{
	u64 count = param_u64("ring", 8192);

	must_be(count && count <= RING_MAX && count % RING_PAGE_DESCRIPTORS == 0,
		"stage.ring=%llu", count);
	return count;
}

static u64 guest_ram_size(void)
{
	u64 mib = param_u64("guest_memory", 128);

	must_be(mib >= 4 && mib % 2 == 0, "stage.guest_memory=%llu", mib);
	must_be((mib << 20) > ring_area_size(ring_count()) + GUEST_DATA, "stage.guest_memory=%llu",
		mib);
	return mib << 20;
}

/* The second device has a session of its own, which outlives the first one's. */
static bool in_two_sessions(void)
{
	return param_control("found-again") || param_control("forget-patch-off") ||
	       taker_is_killed();
}

static void report_frames(const struct ring *ring)
{
	fact("guest.frames", "%llu", ring->frames);
	fact("guest.frames.lost", "%llu", ring->lost);
	fact("guest.frames.repeated", "%llu", ring->repeated);
	fact("guest.frames.damaged", "%llu", ring->damaged);
	if (ring->lost || ring->repeated || ring->damaged)
		fact("guest.frames.first_bad", "%llu", ring->first_bad);
}

/* The outgoing side */

struct outgoing {
	u64 nonce;
	int luo_fd;
	int session_fd;
	int state_fd;
	struct vm_state *state;
	struct vmm vmm;
	struct nic nic;
	struct nic other;
};

/* How much of the guest's memory is its own; the ring comes after that. */
static u64 guest_area(void)
{
	return guest_ram_size() - ring_area_size(ring_count());
}

/* The device that will be preserved, and a ring for it in the memory of a guest to come. */
static void start_device(struct outgoing *out)
{
	u64 size = guest_ram_size(), area = guest_area();
	struct nic *nic = &out->nic;

	_Static_assert(sizeof(struct ring) + RING_MAX / RING_PAGE_BUFFERS *
		       sizeof(struct ring_page) <= GUEST_STAGE_SIZE, "ring too large");

	allow_large_pages();
	nic->bdf = places()->device;
	nic->size = size;
	nic->memfd = memfd_new("guest-ram", size);
	nic->memory = ram_map(nic->memfd, size);
	nic->ring = (void *)(nic->memory + GUEST_STAGE);
	/* What the device writes to is in small pages: compaction leaves large ones alone. */
	must(sys(madvise(nic->memory + area, size - area, MADV_NOHUGEPAGE)));
	ram_populate(nic->memory, nic->size);
	nic_open(nic);
	nic_place_ring(nic, area, ring_count(), out->nonce);
	nic_start(nic);
}

static void start_guest(struct outgoing *out)
{
	struct nic *nic = &out->nic;
	u64 area = guest_area();

	vmm_create(&out->vmm, nic->memfd, nic->memory, nic->size, param_u64("vcpus", 1));
	vmm_load_guest(&out->vmm, out->nonce, area);
	vmm_prefault(&out->vmm);
	vmm_start_threads(&out->vmm);
	report_guest_options(&out->vmm);
	fact("guest.swept_pages", "%llu", area / GUEST_PAGE_SIZE);
	nic->ring->active = 1;
	fact_counter("guest_started", read_counter());
	vmm_run(&out->vmm);
}

/* The same kind of device, used in the same way, but never preserved. */
static void start_other(struct outgoing *out)
{
	struct nic *nic = &out->other;

	nic->bdf = places()->other;
	nic->size = OTHER_AREA + ring_area_size(OTHER_COUNT);
	nic->memfd = memfd_new("other", nic->size);
	nic->memory = ram_map(nic->memfd, nic->size);
	nic->ring = (void *)nic->memory;
	ram_populate(nic->memory, nic->size);
	if (!param_lacks_something()) {
		u64 rounds = param_u64("races", 2);

		/* Controls are for what comes later, and some lack what refuses. */
		if (param_control("bridge-locks-patch-off"))
			races(nic, out->luo_fd, rounds, PROVOKED_RACES);
		else if (!param_control_kind(""))
			races(nic, out->luo_fd, rounds, rounds);
		free_other_port();
	}
	nic_open(nic);
	nic_place_ring(nic, OTHER_AREA, OTHER_COUNT, out->nonce);
	nic_start(nic);
}

/* The host starts to send, and to watch the machine's memory. */
static void start_traffic(struct outgoing *out)
{
	struct deadline deadline = deadline_in_ms(WARM_UP_MS);
	const struct ring *ring = out->nic.ring, *other = out->other.ring;

	nic_start_bell(&out->nic);
	fact("ring.pa", "0x%llx", ring_descriptors_pa(ring));
	fact("ring.count", "%u", ring->count);
	fact("other.ring.pa", "0x%llx", ring_descriptors_pa(other));
	fact("other.ring.count", "%u", other->count);
	await("traffic");
	while (READ_ONCE(ring->frames) < WARM_UP_FRAMES) {
		must_be(!deadline_passed(deadline), "%llu frames within %d ms", ring->frames,
			WARM_UP_MS);
		vmm_check(&out->vmm);
		poll_pause();
	}
	fact("frames.warm_up", "%llu", READ_ONCE(ring->frames));
}

/*
 * A kernel without our series may have support of its own, or none. LUO has no
 * handler for the file then; the device is used all the same, so that what
 * happens to it at the kexec can be seen.
 */
static bool kernel_cannot_preserve_devices(const struct outgoing *out)
{
	int session_fd, ret;

	if (param_control("stock-kernel"))
		return true;
	if (!param_lacks_something())
		return false;
	session_fd = must(luo_create_session(out->luo_fd, SESSION));
	must(luo_preserve_fd(session_fd, out->nic.memfd, TOKEN_RAM));
	ret = luo_preserve_fd(session_fd, out->nic.device, TOKEN_DEVICE);
	close(session_fd);
	return ret == -ENOENT;
}

/* For what lets BARs come and go; see before_kexec(). The device receives all the while. */
static void leave_alone(struct outgoing *out)
{
	nic_stop_bell(&out->nic);
	vmm_pause(&out->vmm);
}

/* The guest goes on, and gets more than what is waiting for it in the ring. */
static bool new_frames_come(struct outgoing *out)
{
	const struct ring *ring = out->nic.ring;
	u32 waiting = (igb_rx_head(&out->nic.igb) + ring->count - ring->next) % ring->count;
	u64 old = ring->frames + waiting;

	vmm_run(&out->vmm);
	while (READ_ONCE(ring->frames) <= old)
		if (!nic_gets_frames(&out->nic))
			return false;
	return true;
}

static void preserve_other(const struct outgoing *out, int session_fd)
{
	must(luo_preserve_fd(session_fd, out->other.memfd, TOKEN_OTHER_MEMORY));
	must(luo_preserve_fd(session_fd, out->other.device, TOKEN_OTHER_DEVICE));
}

/*
 * The second device is preserved as well, and let go. What is above both must
 * stay with the first.
 */
static void let_neighbour_go(const struct outgoing *out)
{
	int session_fd = must(luo_create_session(out->luo_fd, "neighbour"));

	preserve_other(out, session_fd);
	close(session_fd);
	fact("aborts.neighbour", "1 times, %d silent", !nic_gets_frames(&out->nic));
}

/* True when all that should be in the session is. */
static bool preserve(struct outgoing *out)
{
	u64 frames = READ_ONCE(out->nic.ring->frames), start;
	int ret = -ENOENT;

	out->session_fd = must(luo_create_session(out->luo_fd, SESSION));
	fact_counter("preserve", read_counter());
	start = now_us();
	if (!param_control("memfd-not-preserved"))
		must(luo_preserve_fd(out->session_fd, out->nic.memfd, TOKEN_RAM));
	fact("preserve.ram.us", "%llu", now_us() - start);
	start = now_us();
	must(luo_preserve_fd(out->session_fd, out->state_fd, TOKEN_STATE));
	fact("preserve.state.us", "%llu", now_us() - start);
	start = now_us();
	if (!param_control("device-not-preserved")) {
		ret = luo_preserve_fd(out->session_fd, out->nic.device, TOKEN_DEVICE);
		fact("preserve.device", "%d", ret);
		fact("preserve.device.us", "%llu", now_us() - start);
		if (ret < 0 && !out->nic.ring->left_behind)
			return false;
	}
	if (ret == 0)
		let_neighbour_go(out);
	if (param_control("others-refused")) {
		leave_alone(out);
		preserve_others(&out->other, out->session_fd);
		fact("preserve.others.frames", "%s", new_frames_come(out) ? "yes" : "no");
		return false;
	}
	if (param_control("reboot-refused")) {
		leave_alone(out);
		refused_reboots(&out->nic, &out->other, out->session_fd);
		fact("reboot.frames", "%s", new_frames_come(out) ? "yes" : "no");
		return false;
	}
	if (param_control("unbind-patch-off")) {
		leave_alone(out);
		refused_unbinding(&out->nic);
		fact("reboot.frames", "%s", new_frames_come(out) ? "yes" : "no");
		return false;
	}
	if (param_control("other-preserved") || param_control_kind("skew-"))
		preserve_other(out, out->session_fd);
	/* It stays open, as every session with files that are to be handed over. */
	if (in_two_sessions())
		preserve_other(out, must(luo_create_session(out->luo_fd, OTHER_SESSION)));
	nic_gets_frames(&out->nic);
	fact("preserve.frames", "%llu", READ_ONCE(out->nic.ring->frames) - frames);
	fact_counter("preserved", read_counter());
	return true;
}

static void load(struct outgoing *out)
{
	u64 frames = READ_ONCE(out->nic.ring->frames), start = now_us();

	must(kexec_load_incoming());
	fact("load.us", "%llu", now_us() - start);
	nic_gets_frames(&out->nic);
	fact("load.frames", "%llu", READ_ONCE(out->nic.ring->frames) - frames);
	fact_counter("loaded", read_counter());
}

/* What iommufd says about the pages has to be what the process's page tables say. */
static void note_pfns(struct outgoing *out)
{
	u64 *pfns = vm_state_pfns(out->state);
	u64 *mapped = must_be_memory(calloc(out->state->pages, sizeof(u64)));

	nic_read_pfns(&out->nic, pfns);
	must(pagemap_read(out->nic.memory, out->state->pages, mapped));
	fact("pfn.unlike_pagemap", "%llu", count_different(pfns, mapped, out->state->pages));
	report_pfns(pfns, out->state->pages);
	free(mapped);
}

static void pause_and_capture(struct outgoing *out)
{
	struct vm_state *state = out->state;
	const u64 swept = out->nic.ring->area / GUEST_PAGE_SIZE;
	u64 captured;

	await("kho-reboot");
	await("pause");
	vmm_compare_clocks(&out->vmm);
	vmm_pause_for_capture(&out->vmm);
	state->paused_at = read_counter();
	/* A tail that the guest did not ask for would be one that nobody refilled up to. */
	nic_stop_bell(&out->nic);
	vm_capture(&out->vmm, state);
	captured = read_counter();
	digest_pages(out->vmm.ram, swept, vm_state_digests(state));
	fact_counter("digested", read_counter());
	fact_counter("paused", state->paused_at);
	fact_counter("captured", captured);
	report_ram_digest(vm_state_digests(state), swept);
	report_paused_guest(&out->vmm, state);
	report_frames(out->nic.ring);
	nic_report(&out->nic);
}

static int before_kexec(void)
{
	static const u64 from_start[GUEST_MAX_VCPUS];
	static struct outgoing out;

	out.nonce = param_nonce();
	out.luo_fd = luo_must_open();
	/*
	 * Devices are opened, and thereby reset, one after the other and before
	 * there is a guest. Each time BARs come or go QEMU 10.0 exchanges its
	 * memory map at once, and an emulated CPU's TLB, which has indices into
	 * the map, some time later: what another CPU writes to a register in
	 * between goes elsewhere. An interrupt whose end is lost like that is the
	 * last one of its CPU. A guest's timer makes that likely.
	 */
	start_other(&out);
	start_device(&out);
	start_guest(&out);
	start_traffic(&out);
	out.state = vm_state_create(&out.vmm, out.nonce, &out.state_fd);
	vmm_wait_sweep(&out.vmm, from_start, vmm_sweep_timeout_ms(&out.vmm));

	out.nic.ring->left_behind = kernel_cannot_preserve_devices(&out);
	/* Before anything is preserved for the first time. */
	aborted_remember();
	rules_outgoing(&out.nic, out.luo_fd);
	if (param_control("receiver-off"))
		igb_rx_enable(&out.nic.igb, false);
	abort_repeatedly(&out.nic, &out.luo_fd, param_u64("aborts", 20));
	if (!out.nic.ring->left_behind && !param_lacks_something())
		rule_of_disabled_port(&out.nic, &out.other, out.luo_fd);
	if (!preserve(&out))
		return 0;
	load(&out);
	if (param_control("receiver-off"))
		igb_rx_enable(&out.nic.igb, true);
	note_pfns(&out);
	report_leaks();
	pause_and_capture(&out);
	await("reboot");
	fact_counter("reboot", read_counter());
	return leave_kernel();
}

/* The incoming side */

struct incoming {
	u64 nonce;
	int luo_fd;
	int session_fd;
	int state_fd;
	struct vm_state *state;
	u64 frames_before;
	struct vmm vmm;
	struct nic nic;
};

/* A file of the session, or -errno; said as retrieve.@name either way. */
static int retrieve_fd(struct incoming *in, u64 token, const char *key)
{
	int fd = luo_retrieve_fd(in->session_fd, token);

	fact(key, "%d", fd < 0 ? fd : 0);
	return fd;
}

/* What the kernel has pinned, up to date. */
static long long pins_now(void)
{
	refresh_counters();
	return pinned_pages();
}

/* True when there is all that the guest needs. */
static bool retrieve_guest(struct incoming *in)
{
	struct nic *nic = &in->nic;
	const char *refused;
	struct stat stat;
	long long pins;

	in->session_fd = luo_retrieve_session(in->luo_fd, SESSION);
	fact("retrieve.session", "%d", in->session_fd < 0 ? in->session_fd : 0);
	if (in->session_fd < 0)
		return false;
	pins = pins_now();
	in->state_fd = retrieve_fd(in, TOKEN_STATE, "retrieve.state");
	nic->memfd = retrieve_fd(in, TOKEN_RAM, "retrieve.ram");
	fact("retrieve.pins", "%lld", pins_now() - pins);
	if (in->state_fd < 0 || nic->memfd < 0)
		return false;

	fact_counter("retrieved", read_counter());
	/* Where pages move, the device would write into whatever comes in their place. */
	if (param_control("pin-patch-off"))
		await("quiet");
	/*
	 * Of the guest's memory only the pins that came with the memfd keep it in
	 * place: nothing has mapped it yet. (Later a guest would have each of its
	 * pages taken away, and put back, several times. On an emulated CPU that
	 * takes minutes.)
	 */
	compact_memory();
	must(sys(fstat(in->state_fd, &stat)));
	in->state = vm_state_map(in->state_fd, stat.st_size);
	refused = vm_state_refused(in->state, stat.st_size, in->nonce);
	if (refused) {
		fact("retrieve.state_refused", "%s", refused);
		return false;
	}
	must(sys(fstat(nic->memfd, &stat)));
	nic->size = stat.st_size;
	nic->bdf = places()->device;
	nic->memory = ram_map(nic->memfd, nic->size);
	nic->ring = (void *)(nic->memory + GUEST_STAGE);
	fact("collapse", "%d", collapse_memory(nic->memory + nic->ring->area,
					       nic->size - nic->ring->area));
	in->frames_before = nic->ring->frames;
	fact("ram.size", "%llu", nic->size);
	fact_counter("compacted", read_counter());
	return nic->size == in->state->ram_size;
}

/* All but what the device writes to: there, something new is there by now. */
static void compare_ram(struct incoming *in)
{
	const u64 swept = in->nic.ring->area / GUEST_PAGE_SIZE;
	u64 *digests = must_be_memory(calloc(swept, sizeof(u64)));

	if (param_control("byte-flipped"))
		in->nic.memory[in->nic.ring->area / 2 + 100] ^= 1;
	digest_pages(in->nic.memory, swept, digests);
	fact_counter("compared", read_counter());
	report_ram_digest(digests, swept);
	report_ram_difference(vm_state_digests(in->state), digests, swept);
	free(digests);
}

/* The guest needs no device to go on reading its ring, only the memory. */
static void resume_guest(struct incoming *in)
{
	struct refused_registers refused = {};
	u64 resumed;

	vmm_create(&in->vmm, in->nic.memfd, in->nic.memory, in->nic.size, in->state->nr_vcpus);
	vm_restore(&in->vmm, in->state, &refused);
	vmm_prefault(&in->vmm);
	vmm_start_threads(&in->vmm);
	report_loaded_guest(&in->vmm);
	report_refused_registers(&refused);
	resumed = read_counter();
	vmm_run(&in->vmm);
	fact_counter("resume", resumed);
}

static void compare_pfns(struct incoming *in)
{
	u64 *pfns = must_be_memory(calloc(in->state->pages, sizeof(u64)));

	nic_read_pfns(&in->nic, pfns);
	report_pfn_difference(vm_state_pfns(in->state), pfns, in->state->pages);
	report_pfns(pfns, in->state->pages);
	free(pfns);
}

/* The session is closed before it may be finished. */
static void leave_session(struct incoming *in)
{
	static const struct timespec second = { .tv_sec = 1 };
	u64 frames;

	close(in->session_fd);
	in->session_fd = -1;
	frames = READ_ONCE(in->nic.ring->frames);
	nanosleep(&second, NULL);
	fact("left.frames", "%llu", READ_ONCE(in->nic.ring->frames) - frames);
}

/*
 * The kernel has stopped the device, and perhaps moved the memory. Its ring is
 * placed anew there, and the device begins with the first descriptor.
 */
static void start_anew(struct incoming *in)
{
	struct nic *nic = &in->nic;

	nic_enable(nic);
	nic_report(nic);
	nic_map(nic);
	compare_pfns(in);
	vmm_pause(&in->vmm);
	nic_place_ring(nic, nic->ring->area, nic->ring->count, in->nonce);
	WRITE_ONCE(nic->ring->next, 0);
	fact("anew.ring.pa", "0x%llx", ring_descriptors_pa(nic->ring));
	fact("anew.ring.count", "%u", nic->ring->count);
	await("anew");
	nic_start(nic);
	fact_counter("anew", read_counter());
	nic_start_bell(nic);
	vmm_run(&in->vmm);
	fact_counter("adopted", read_counter());
}

/* True when the device is this process's again, with all that it was doing, or started anew. */
static bool adopt_device(struct incoming *in)
{
	struct nic *nic = &in->nic;
	int device, ret;

	if (param_control("device-missing") || param_control("class-patch-off")) {
		retrieve_fd(in, TOKEN_DEVICE, "retrieve.device");
		retrieve_fd(in, TOKEN_DEVICE, "retrieve.device_again");
		return false;
	}
	rules_before_bind(nic, in->session_fd);
	must(pci_driver_bind(nic->bdf, "vfio-pci"));
	rules_before_retrieve(nic, in->session_fd);
	device = retrieve_fd(in, TOKEN_DEVICE, "retrieve.device");
	if (device < 0)
		return false;
	if (param_control("session-left") || param_control("discard-patch-off")) {
		leave_session(in);
		return false;
	}
	rules_before_attach(nic, in->session_fd, device);
	ret = nic_bind(nic, device);
	fact("bind.device", "%d", ret);
	if (ret < 0)
		return false;
	if (param_lacks_something() && nic_was_stopped(nic)) {
		start_anew(in);
		return true;
	}
	if (param_control("device-reset"))
		must(igb_reset(&nic->igb));
	nic_report(nic);
	rules_of_finish(nic, in->session_fd);
	nic_map_in_halves(nic);
	fact_counter("adopted", read_counter());
	if (!param_control("tail-left"))
		nic_start_bell(nic);
	compare_pfns(in);
	rules_of_adopted(nic);
	return true;
}

/* Until descriptors are used again that were refilled in this kernel. */
static void wait_wrap(struct incoming *in)
{
	struct deadline deadline = deadline_in_ms(WRAP_MS), tell = deadline_in_ms(TELL_MS);
	const struct ring *ring = in->nic.ring;
	u64 wanted = in->frames_before + ring->count + AGAIN_FRAMES;

	while (READ_ONCE(ring->frames) < wanted && !deadline_passed(deadline) &&
	       nic_gets_frames(&in->nic)) {
		vmm_check(&in->vmm);
		if (!deadline_passed(tell))
			continue;
		dialogue_line("# at going-round");
		tell = deadline_in_ms(TELL_MS);
	}
	vmm_check(&in->vmm);
}

/*
 * In a ring that was placed anew: what the host has kept for the device comes at
 * once, and what it sends from now on comes after that.
 */
static void watch_anew(struct incoming *in)
{
	struct deadline deadline = deadline_in_ms(ANEW_MS);

	while (!deadline_passed(deadline) && nic_gets_frames(&in->nic))
		vmm_check(&in->vmm);
}

/* Only now are folios counted: until here nothing may have become of what is pinned. */
static void finish(struct incoming *in)
{
	long long pins;

	fact("finish.folios", "%llu", folios_of(in->nic.memory, in->nic.size) +
	     folios_of(in->state, in->state->state_size));
	pins = pins_now();
	fact("finish", "%d", luo_finish(in->session_fd));
	fact_counter("finished", read_counter());
	fact("finish.unpinned", "%lld", pins - pins_now());
}

static void finish_and_watch(struct incoming *in, bool adopted)
{
	u64 at_resume[GUEST_MAX_VCPUS], at_finish[GUEST_MAX_VCPUS], at_end[GUEST_MAX_VCPUS];
	u64 timeout_ms = vmm_sweep_timeout_ms(&in->vmm);

	for (unsigned int i = 0; i < in->vmm.nr_vcpus; i++)
		at_resume[i] = vcpu_state_steps(&in->state->vcpu[i]);
	vmm_wait_sweep(&in->vmm, at_resume, timeout_ms);
	vmm_read_counters(&in->vmm, at_finish);
	finish(in);
	/* Some of the frames that come once in a while to a device which nobody has stopped. */
	if (param_control_kind("skew-"))
		sleep(2);
	if (adopted && param_lacks_something()) {
		watch_anew(in);
	} else if (adopted) {
		rule_of_another_update(&in->nic, in->luo_fd);
		wait_wrap(in);
	}
	vmm_wait_sweep(&in->vmm, at_finish, timeout_ms);
	/* The host stops to send; what it has sent is there when it answers. */
	await("silence");
	nic_wait_idle(&in->nic);
	vmm_compare_clocks(&in->vmm);
	vmm_pause(&in->vmm);
	vmm_read_counters(&in->vmm, at_end);
	report_resumed_guest(&in->vmm, in->state, at_resume, at_finish, at_end);
	report_frames(in->nic.ring);
}

/* The counter is cleared when it is read, so it is read once, here. */
static void let_go(struct incoming *in)
{
	struct nic *nic = &in->nic;

	nic_stop_bell(nic);
	fact("device.good_packets", "%u", igb_rx_good_packets(&nic->igb));
	igb_report_interrupts(&nic->igb, nic->device);
	rules_after_finish(nic, in_two_sessions() && !taker_is_killed());
	await("released");
	rule_of_unbinding(nic);
}

static int after_kexec(void)
{
	static struct incoming in;
	bool adopted;

	in.nonce = param_nonce();
	in.luo_fd = luo_must_open();
	if (!retrieve_guest(&in)) {
		await("silence");
		return 0;
	}
	compare_ram(&in);
	/* Before there is a guest, for the reason that before_kexec() gives. */
	if (taker_is_killed()) {
		kill_other_taker(in.luo_fd);
		use_killed_takers_device(in.nonce);
	}
	resume_guest(&in);
	adopted = adopt_device(&in);
	finish_and_watch(&in, adopted);
	if (adopted)
		let_go(&in);
	if (param_lacks_something())
		ktap_skip_rest(NOT_PROMISED);
	if (adopted && in_two_sessions() && !taker_is_killed())
		find_again(&in.nic);
	fact("mem.total_kb_at_end", "%llu", meminfo_kb("MemTotal"));
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
	.tests = { [SIDE_OUTGOING] = RULES_OUTGOING, [SIDE_INCOMING] = RULES_INCOMING },
};
