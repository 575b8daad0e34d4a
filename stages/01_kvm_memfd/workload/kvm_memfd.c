// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 1: the RAM of a KVM guest stays where it is, in a memfd, while the
 * kernel under it is exchanged. Both sides of the kexec are in this file.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "given_back.h"
#include "ledger.h"
#include "many.h"
#include "memfd_states.h"
#include "racers.h"
#include "report.h"
#include "rules.h"
#include "vm_state.h"

#define SESSION "kexec-stages"

#define HOLD_US 1200000

enum {
	TOKEN_RAM = 1,
	TOKEN_STATE,
};

static u64 guest_ram_size(void)
{
	u64 mib = param_u64("guest_memory", 256);

	must_be(mib >= 4 && mib % 2 == 0, "stage.guest_memory=%llu", mib);
	return mib << 20;
}

/* The outgoing side */

struct outgoing {
	u64 nonce;
	int luo_fd;
	int session_fd;
	int state_fd;
	struct vm_state *state;
	struct vmm *vmm;
};

static void create_state(struct outgoing *out)
{
	out->state = vm_state_create(out->vmm, out->nonce, &out->state_fd);
	if (param_control("wrong-nonce"))
		out->state->nonce = ~out->nonce;
}

/* By so much ShmemHugePages has grown when there was the guest's memory. */
static u64 ram_huge_kb;

static void start_guest(struct outgoing *out)
{
	u64 size = guest_ram_size();
	u64 huge_kb = meminfo_kb("ShmemHugePages");
	int ram_fd = memfd_new("guest-ram", size);
	u8 *ram;

	if (param_u64("large_pages", 1))
		allow_large_pages();
	ram = ram_map(ram_fd, size);
	ram_populate(ram, size);
	ram_huge_kb = meminfo_kb("ShmemHugePages") - huge_kb;
	vmm_create(out->vmm, ram_fd, ram, size, param_u64("vcpus", 1));
	vmm_load_guest(out->vmm, out->nonce, size);
	vmm_prefault(out->vmm);
	vmm_start_threads(out->vmm);
	report_guest_options(out->vmm);
	fact_counter("guest_started", read_counter());
	vmm_run(out->vmm);
}

/*
 * What a busy host needs to run the vCPU's thread again: to preserve a memfd of
 * large pages takes less than a time slice. A guest that is paused never steps.
 */
#define STEP_MS 500

static u64 steps_since(const struct vmm *vmm, u64 steps)
{
	struct deadline deadline = deadline_in_ms(STEP_MS);

	while (vmm_steps(vmm) == steps && !deadline_passed(deadline))
		poll_pause();
	return vmm_steps(vmm) - steps;
}

static void preserve(struct outgoing *out)
{
	u64 *pfns_before = must_be_memory(calloc(out->state->pages, sizeof(u64)));
	u64 steps, start;

	ram_read_pfns(out->vmm->ram, out->state->pages, pfns_before);
	if (param_control("paused-early")) {
		vmm_pause(out->vmm);
		fact("paused_early", "yes");
	}
	steps = vmm_steps(out->vmm);
	fact("mem.available_kb.before_preserve", "%llu", available_kb());
	out->session_fd = must(luo_create_session(out->luo_fd, SESSION));
	fact_counter("preserve", read_counter());
	start = now_us();
	if (!param_control("not-preserved"))
		must(luo_preserve_fd(out->session_fd, out->vmm->ram_fd, TOKEN_RAM));
	fact("preserve.ram.us", "%llu", now_us() - start);
	start = now_us();
	must(luo_preserve_fd(out->session_fd, out->state_fd, TOKEN_STATE));
	fact("preserve.state.us", "%llu", now_us() - start);
	fact("preserve.guest_steps", "%llu", steps_since(out->vmm, steps));
	fact_counter("preserved", read_counter());
	fact("mem.available_kb.preserved", "%llu", available_kb());

	/* LUO moves what lies in KHO's scratch memory, under the running guest. */
	ram_read_pfns(out->vmm->ram, out->state->pages, vm_state_pfns(out->state));
	fact("preserve.pages_moved", "%llu",
	     count_different(pfns_before, vm_state_pfns(out->state), out->state->pages));
	free(pfns_before);
}

static void load(struct outgoing *out)
{
	u64 steps = vmm_steps(out->vmm), start = now_us();

	must(kexec_load_incoming());
	fact("load.us", "%llu", now_us() - start);
	fact("load.guest_steps", "%llu", steps_since(out->vmm, steps));
	fact_counter("loaded", read_counter());
}

/* Closing is an abort: the guest has to live on in this kernel as if nothing had been. */
static void close_session(struct outgoing *out)
{
	u64 counters[GUEST_MAX_VCPUS], errors = 0;

	close(out->session_fd);
	vmm_read_counters(out->vmm, counters);
	vmm_wait_sweep(out->vmm, counters, vmm_sweep_timeout_ms(out->vmm));
	for (unsigned int i = 0; i < out->vmm->nr_vcpus; i++)
		errors += report_guest_errors(&out->vmm->vcpus[i]);
	fact("closed.sweeps", "%llu", vmm_sweeps_since(out->vmm, counters));
	fact("closed.guest_errors", "%llu", errors);
}

static void pause_and_capture(struct outgoing *out)
{
	struct vm_state *state = out->state;
	u64 pausing, captured;

	await("pause");
	vmm_compare_clocks(out->vmm);
	pausing = read_counter();
	vmm_pause_for_capture(out->vmm);
	state->paused_at = read_counter();
	vm_capture(out->vmm, state);
	captured = read_counter();
	/* The host hashes the same pages from outside, while we do. */
	dialogue_line("# at captured");
	digest_pages(out->vmm->ram, state->pages, vm_state_digests(state));
	fact_counter("digested", read_counter());
	fact_counter("pausing", pausing);
	fact_counter("paused", state->paused_at);
	fact_counter("captured", captured);
	fact("ram.huge_kb", "%llu", ram_huge_kb);
	report_ram_digest(vm_state_digests(state), state->pages);
	report_paused_guest(out->vmm, state);
}

/* From a guest that runs to the kexec: all that a kernel does that will be left. */
static int update(struct outgoing *out)
{
	u64 from_start[GUEST_MAX_VCPUS];

	vmm_read_counters(out->vmm, from_start);
	create_state(out);
	rules_outgoing(out->luo_fd, out->nonce);
	rules_ioctl_outgoing(out->luo_fd);
	given_back_outgoing(out->luo_fd);
	states_outgoing(out->luo_fd, out->nonce);
	many_outgoing(out->luo_fd, out->nonce);
	fact_counter("files", read_counter());
	if (!param_control("guest-asleep") || !param_updates_done())
		vmm_wait_sweep(out->vmm, from_start, vmm_sweep_timeout_ms(out->vmm));
	fact_counter("swept", read_counter());

	preserve(out);
	load(out);
	if (param_control("holder-killed"))
		holder_request_kill();
	report_pfns(vm_state_pfns(out->state), out->state->pages);
	if (param_control("session-closed"))
		close_session(out);
	report_leaks();

	/*
	 * The host counts what is registered with KHO, before others change it
	 * again, and while the guest still runs: it may take a second.
	 */
	await("kho-reboot");
	racers_start(out->luo_fd, out->nonce);
	pause_and_capture(out);
	return leave_for_incoming();
}

static int before_kexec(void)
{
	static struct outgoing out;
	static struct vmm vmm;

	out.vmm = &vmm;
	out.nonce = param_nonce();
	out.luo_fd = luo_must_open();
	start_guest(&out);
	return update(&out);
}

/*
 * Files of a killed process are closed and their pages freed by kernel threads,
 * some time after it is gone: available memory when it has stopped growing.
 */
static u64 settled_available_kb(void)
{
	struct deadline give_up = deadline_in_ms(5000), settled = deadline_in_ms(200);
	u64 most = available_kb();

	while (!deadline_passed(settled) && !deadline_passed(give_up)) {
		u64 now = available_kb();

		if (now > most) {
			most = now;
			settled = deadline_in_ms(200);
		}
		poll_pause();
	}
	return most;
}

/*
 * In PID 1, when it has killed the holder: nothing may be left to be carried
 * over. The image is unloaded, so that memory can be compared, and loaded anew.
 */
static int after_holder_kill(void)
{
	must(kexec_unload());
	fact("mem.available_kb.after_kill", "%llu", settled_available_kb());
	must(kexec_load_incoming());
	return leave_for_incoming();
}

/* The incoming side */

struct incoming {
	u64 nonce;
	int luo_fd;
	int session_fd;
	int state_fd;
	int ram_fd;
	u8 *ram;
	struct vm_state *state;
	u64 *digests;
	struct vmm vmm;
};

/* True when there is all that a guest needs. */
static bool retrieve(struct incoming *in)
{
	u64 start = now_us(), size, huge_kb;
	const char *refused;
	struct stat stat;

	in->state_fd = -ENOENT;
	in->session_fd = luo_retrieve_session(in->luo_fd, SESSION);
	fact("retrieve.session", "%d", in->session_fd < 0 ? in->session_fd : 0);
	if (in->session_fd < 0)
		return false;

	in->state_fd = luo_retrieve_fd(in->session_fd, TOKEN_STATE);
	fact("retrieve.state", "%d", in->state_fd < 0 ? in->state_fd : 0);
	if (in->state_fd < 0)
		return false;
	must(sys(fstat(in->state_fd, &stat)));
	size = stat.st_size;
	in->state = vm_state_map(in->state_fd, size);
	refused = vm_state_refused(in->state, size, in->nonce);
	if (refused) {
		fact("retrieve.state_refused", "%s", refused);
		return false;
	}

	huge_kb = meminfo_kb("ShmemHugePages");
	in->ram_fd = luo_retrieve_fd(in->session_fd, TOKEN_RAM);
	fact("retrieve.ram", "%d", in->ram_fd < 0 ? in->ram_fd : 0);
	if (in->ram_fd < 0)
		return false;
	must(sys(fstat(in->ram_fd, &stat)));
	fact("ram.size", "%llu", (u64)stat.st_size);
	ram_huge_kb = meminfo_kb("ShmemHugePages") - huge_kb;
	fact("ram.huge_kb", "%llu", ram_huge_kb);
	fact("retrieve.us", "%llu", now_us() - start);
	fact_counter("retrieved", read_counter());
	return (u64)stat.st_size == in->state->ram_size;
}

/*
 * Control pages-copied: content and registers are right, the memory is not the
 * same. Piece by piece, so that it can be done where there is no room for two.
 */
static void copy_pages(struct incoming *in)
{
	const u64 piece = 2 << 20, size = in->state->ram_size;
	int fd = memfd_new("guest-ram-copy", size);
	u8 *copy = ram_map(fd, size);

	/* The holes punched below change what the host is looking at. */
	await("copy");
	for (u64 at = 0; at < size; at += piece) {
		memcpy(copy + at, in->ram + at, piece);
		must(sys(fallocate(in->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
				   piece)));
	}
	in->ram = copy;
	in->ram_fd = fd;
}

static void compare_ram(struct incoming *in)
{
	u64 pages = in->state->pages;

	in->ram = ram_map(in->ram_fd, in->state->ram_size);
	in->digests = must_be_memory(calloc(pages, sizeof(u64)));
	if (param_control("byte-flipped"))
		in->ram[in->state->ram_size / 2 + 100] ^= 1;
	dialogue_line("# at retrieved");
	digest_pages(in->ram, pages, in->digests);
	fact_counter("compared", read_counter());
	report_ram_digest(in->digests, pages);
	report_ram_difference(vm_state_digests(in->state), in->digests, pages);
}

static void restore(struct incoming *in)
{
	struct refused_registers refused = {};

	corrupt_state(in->state);
	vmm_create(&in->vmm, in->ram_fd, in->ram, in->state->ram_size, in->state->nr_vcpus);
	vm_restore(&in->vmm, in->state, &refused);
	vmm_prefault(&in->vmm);
	vmm_start_threads(&in->vmm);
	fact_counter("restored", read_counter());
	report_loaded_guest(&in->vmm);
	report_refused_registers(&refused);
}

static void resume(struct incoming *in)
{
	u64 resumed;

	/* From here on memory changes: the host has to be done with its look at it. */
	await("resume");
	if (param_control("counter-corrupted"))
		in->vmm.vcpus[0].block->counter++;
	resumed = read_counter();
	vmm_run(&in->vmm);
	fact_counter("resume", resumed);
}

static void compare_pfns(struct incoming *in)
{
	u64 *pfns = must_be_memory(calloc(in->state->pages, sizeof(u64)));

	ram_read_pfns(in->vmm.ram, in->state->pages, pfns);
	report_pfn_difference(vm_state_pfns(in->state), pfns, in->state->pages);
	report_pfns(pfns, in->state->pages);
	free(pfns);
}

static void hold_vcpus(struct vmm *vmm)
{
	vmm_pause(vmm);
	usleep(HOLD_US);
	vmm_run(vmm);
}

static void finish_and_watch(struct incoming *in)
{
	u64 at_resume[GUEST_MAX_VCPUS], at_finish[GUEST_MAX_VCPUS], at_end[GUEST_MAX_VCPUS];
	u64 timeout_ms = vmm_sweep_timeout_ms(&in->vmm);

	for (unsigned int i = 0; i < in->vmm.nr_vcpus; i++)
		at_resume[i] = vcpu_state_steps(&in->state->vcpu[i]);
	vmm_wait_sweep(&in->vmm, at_resume, timeout_ms);
	if (param_control("vcpu-held"))
		hold_vcpus(&in->vmm);
	vmm_read_counters(&in->vmm, at_finish);
	if (!param_control("session-unfinished")) {
		fact("finish", "%d", luo_finish(in->session_fd));
		fact_counter("finished", read_counter());
	}
	vmm_wait_sweep(&in->vmm, at_finish, timeout_ms);
	vmm_compare_clocks(&in->vmm);
	vmm_pause(&in->vmm);
	/* The host looks for what the guest has written into the pages since. */
	await("watched");
	vmm_read_counters(&in->vmm, at_end);
	report_resumed_guest(&in->vmm, in->state, at_resume, at_finish, at_end);
}

/* What came to this kernel, for a chain to go on with. */
static struct incoming *arrived;

/* TAINT_USER: "userspace asked for it" */
static int taint_kernel(void)
{
	int fd = must(sys(open("/proc/sys/kernel/tainted", O_WRONLY | O_CLOEXEC)));
	int ret = sys(write(fd, "64", 2));

	close(fd);
	return ret;
}

static int after_kexec(void)
{
	static struct incoming in;
	bool resumed;

	arrived = &in;
	in.nonce = param_nonce();
	if (param_control("tainted"))
		must(taint_kernel());
	in.luo_fd = luo_must_open();
	resumed = retrieve(&in);
	if (resumed) {
		compare_ram(&in);
		if (param_control("pages-copied"))
			copy_pages(&in);
		restore(&in);
		resume(&in);
	}
	/* The guest runs by now, so what follows is no part of the blackout. */
	rules_incoming(in.luo_fd, in.nonce);
	rules_ioctl_incoming(in.luo_fd);
	given_back_incoming(in.luo_fd);
	states_incoming(in.luo_fd, in.nonce);
	many_incoming(in.luo_fd, in.nonce);
	racers_incoming(in.luo_fd, in.nonce);
	fact_counter("files", read_counter());
	if (resumed) {
		compare_pfns(&in);
		finish_and_watch(&in);
	}
	ledger("end");
	return 0;
}

/*
 * In a chain: the guest that came goes on to the next kernel. It was paused to
 * be looked at; its longest gap is asked for again, in each update its own.
 */
static int before_next_kexec(void)
{
	struct vmm *vmm = &arrived->vmm;
	struct outgoing out = {
		.nonce = arrived->nonce,
		.luo_fd = arrived->luo_fd,
		.vmm = vmm,
	};

	must_be(vmm->ram, "the guest did not come");
	close(arrived->session_fd);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		vmm->vcpus[i].block->gap_max = (struct guest_gap){};
		vmm->vcpus[i].block->gap_next = (struct guest_gap){};
	}
	report_guest_options(vmm);
	if (!param_control("guest-asleep"))
		vmm_run(vmm);
	return update(&out);
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
	.before_next_kexec = before_next_kexec,
	.after_holder_kill = after_holder_kill,
	.at_reboot = racers_go,
	.tests = {
		[SIDE_OUTGOING] = RULES_OUTGOING + RULES_IOCTL_OUTGOING + GIVEN_BACK_OUTGOING,
		[SIDE_INCOMING] = RULES_INCOMING + RULES_IOCTL_INCOMING + GIVEN_BACK_INCOMING,
	},
};
