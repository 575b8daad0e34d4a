// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 1 with QEMU: its guest's RAM stays where it is, in a memfd, and the
 * rest of the guest goes through a second one, as QEMU itself saves and loads
 * it. Both sides of the kexec are in this file. What QEMU does, the host tells
 * it over QMP, at the rendezvous.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "free_memory.h"
#include "handover.h"
#include "qemu_process.h"
#include "ways.h"

#define SESSION "kexec-stages"

/* No file of ours has it: QEMU finds nothing there. */
#define NO_FILE 900
#define QEMU_REFUSES_MS 20000

#define PRESERVE_TRIES 5
#define PRESERVE_AGAIN_US 50000

/* More than the host waits for the guest; see kvm_memfd_qemu_guest.py */
#define GUEST_MS 60000
#define UNKNOWN_GUEST_MS 300000
#define GUEST_MS_PER_GIB 160000

enum {
	TOKEN_RAM = 1,
	TOKEN_STATE,
};

static u64 guest_ram_size(void)
{
	u64 mib = param_u64("guest_memory", 128);

	must_be(mib >= 64 && mib % 2 == 0, "stage.guest_memory=%llu", mib);
	return mib << 20;
}

/* Once round its memory is what the guest needs most time for. */
static void await_guest(const char *name, u64 ram_size)
{
	u64 boot_ms = param_u64("guest_image", 0) ? UNKNOWN_GUEST_MS : GUEST_MS;

	await_within(name, boot_ms + ram_size * GUEST_MS_PER_GIB / (1ull << 30));
}

/* Where the host is to tell QEMU to save to, or to load from. */
static void report_uri(int state_fd, u64 ram_size)
{
	fact("qemu.uri", "file:/proc/self/fd/%d,offset=%llu", state_fd,
	     handover_stream_offset(ram_size));
}

/* The outgoing side */

struct outgoing {
	u64 nonce;
	int luo_fd;
	int session_fd;
	int ram_fd;
	int state_fd;
	u8 *ram;
	u64 ram_size;
	u64 vcpus;
	struct qemu_config config;
	pid_t qemu;
	struct handover *handover;
};

static void start_guest(struct outgoing *out)
{
	if (param_u64("large_pages", 1))
		allow_large_pages();
	out->ram_fd = ram_new(out->ram_size);
	out->ram = ram_map(out->ram_fd, out->ram_size);
	ram_populate(out->ram, out->ram_size);
	out->handover = handover_create(out->nonce, out->ram_size, out->vcpus, &out->state_fd);
	if (param_control("wrong-nonce"))
		out->handover->nonce = ~out->nonce;
	out->config = (struct qemu_config){
		.qmp = "qmp.outgoing",
		.ram_fd = out->ram_fd,
		.ram_size = out->ram_size,
		.state_fd = out->state_fd,
		.vcpus = out->vcpus,
		.nonce = out->nonce,
	};
	out->qemu = qemu_start(&out->config);
	fact("guest.memory_mib", "%llu", out->ram_size >> 20);
	fact("guest.pages", "%llu", out->handover->pages);
	fact("guest.vcpus", "%llu", out->vcpus);
	fact_counter("guest_started", read_counter());
	await("qmp");
	must_be(!qemu_ended(out->qemu, 0), "QEMU has ended");
	await_guest("guest", out->ram_size);
}

/*
 * What lies in KHO's scratch memory is moved out of it, and cannot be while somebody has a
 * reference to it: memfd_pin_folios() says -ENOMEM then, and may do better another time.
 */
static void preserve_ram(struct outgoing *out)
{
	int tries = 1, ret;

	while ((ret = luo_preserve_fd(out->session_fd, out->ram_fd, TOKEN_RAM)) == -ENOMEM &&
	       tries < PRESERVE_TRIES) {
		usleep(PRESERVE_AGAIN_US);
		tries++;
	}
	fact("preserve.tries", "%d", tries);
	must(ret);
}

static void preserve(struct outgoing *out)
{
	u64 pages = out->handover->pages, start;
	u64 *pfns_before = must_be_memory(calloc(pages, sizeof(u64)));

	if (proof_wanted())
		ram_read_pfns(out->ram, pages, pfns_before);
	out->session_fd = must(luo_create_session(out->luo_fd, SESSION));
	fact("mem.available_kb.before_preserve", "%llu", available_kb());
	fact_counter("preserve", read_counter());
	start = now_us();
	if (!param_control("not-preserved"))
		preserve_ram(out);
	fact("preserve.ram.us", "%llu", now_us() - start);
	fact_counter("preserved", read_counter());
	fact("mem.available_kb.preserved", "%llu", available_kb());
	/* LUO moves what lies in KHO's scratch memory, under the running guest. */
	if (proof_wanted()) {
		ram_read_pfns(out->ram, pages, handover_pfns(out->handover));
		fact("preserve.pages_moved", "%llu",
		     count_different(pfns_before, handover_pfns(out->handover), pages));
	}
	free(pfns_before);
}

/* Control qemu-killed: as soon as the first bytes are in the file. */
static void *kill_while_saving(void *argument)
{
	struct outgoing *out = argument;
	struct deadline deadline = deadline_in_ms(20000);

	while (!handover_stream_size(out->handover, out->state_fd) && !deadline_passed(deadline))
		sched_yield();
	kill(out->qemu, SIGKILL);
	return NULL;
}

static void save(struct outgoing *out)
{
	u64 pages = out->handover->pages;
	pthread_t killer;

	report_uri(out->state_fd, out->ram_size);
	if (param_control("qemu-killed")) {
		must(-pthread_create(&killer, NULL, kill_while_saving, out));
		await("save");
		must(-pthread_join(killer, NULL));
		qemu_ended(out->qemu, 5000);
	} else {
		await("save");
	}
	fact_counter("saved", read_counter());
	if (param_control("state-cut"))
		must(sys(ftruncate(out->state_fd,
				   handover_stream_offset(out->ram_size) +
				   handover_stream_size(out->handover, out->state_fd) / 2)));
	out->handover->stream_size = handover_stream_size(out->handover, out->state_fd);
	if (proof_wanted()) {
		/* The host hashes the same pages from outside, while we do. */
		dialogue_line("# at captured");
		digest_pages(out->ram, pages, handover_digests(out->handover));
	}
	fact_counter("digested", read_counter());
	must(luo_preserve_fd(out->session_fd, out->state_fd, TOKEN_STATE));
	fact_counter("state_preserved", read_counter());
	fact("state.bytes", "%llu", out->handover->stream_size);
	report_free_memory("saving");
	if (proof_wanted())
		report_ram_digest(handover_digests(out->handover), pages);
}

static int before_kexec(void)
{
	static struct outgoing out;
	u64 start;

	out.nonce = param_nonce();
	out.ram_size = guest_ram_size();
	out.vcpus = param_u64("vcpus", 1);
	out.luo_fd = luo_must_open();
	qemu_mount();
	if (place_wanted())
		place_prepare();
	start_guest(&out);
	if (!proof_wanted())
		watch_free_memory();
	if (!place_wanted())
		preserve(&out);
	start = now_us();
	must(kexec_load_incoming());
	fact("load.us", "%llu", now_us() - start);
	fact_counter("loaded", read_counter());
	if (!place_wanted() && proof_wanted())
		report_pfns(handover_pfns(out.handover), out.handover->pages);
	await("preserved");
	if (place_wanted())
		return save_to_place();
	report_leaks();
	save(&out);
	if (param_control("in-place"))
		return cross_in_place(out.config, out.qemu);
	if (param_control("given-up")) {
		close(out.session_fd);
		await_guest("goes-on", out.ram_size);
	}
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
	struct handover *handover;
};

static int retrieve_fd(struct incoming *in, u64 token, const char *key)
{
	int fd = luo_retrieve_fd(in->session_fd, token);

	fact(key, "%d", fd < 0 ? fd : 0);
	return fd;
}

/* True when there is a state that may be loaded; the RAM is left to QEMU. */
static bool retrieve(struct incoming *in)
{
	const char *refused;
	struct stat stat;

	in->session_fd = luo_retrieve_session(in->luo_fd, SESSION);
	fact("retrieve.session", "%d", in->session_fd < 0 ? in->session_fd : 0);
	if (in->session_fd < 0)
		return false;
	in->state_fd = retrieve_fd(in, TOKEN_STATE, "retrieve.state");
	if (in->state_fd < 0)
		return false;
	in->handover = handover_map(in->state_fd);
	refused = handover_refused(in->handover, in->state_fd, in->nonce);
	if (refused) {
		fact("retrieve.state_refused", "%s", refused);
		return false;
	}
	fact("state.bytes", "%llu", in->handover->stream_size);
	in->ram_fd = retrieve_fd(in, TOKEN_RAM, "retrieve.ram");
	if (in->ram_fd >= 0) {
		must(sys(fstat(in->ram_fd, &stat)));
		fact("ram.size", "%llu", (u64)stat.st_size);
	}
	fact_counter("retrieved", read_counter());
	return true;
}

/* A page of the guest's memory checker begins with the nonce; of the user's guest any will do. */
static u8 *find_checked_page(const struct incoming *in)
{
	if (param_u64("guest_image", 0))
		return in->ram + in->handover->pages / 2 * GUEST_PAGE_SIZE;
	for (u64 page = in->handover->pages / 2; page < in->handover->pages; page++) {
		u8 *at = in->ram + page * GUEST_PAGE_SIZE;

		if (*(u64 *)at == in->nonce)
			return at;
	}
	bail("no page of the guest's checker in the upper half of RAM");
}

static void compare_ram(struct incoming *in)
{
	u64 pages = in->handover->pages;
	u64 *digests = must_be_memory(calloc(pages, sizeof(u64)));

	if (param_control("byte-flipped"))
		find_checked_page(in)[1000] ^= 1;
	dialogue_line("# at retrieved");
	digest_pages(in->ram, pages, digests);
	fact_counter("compared", read_counter());
	report_ram_digest(digests, pages);
	report_ram_difference(handover_digests(in->handover), digests, pages);
	free(digests);
}

/* Control pages-copied: the content is right, the memory is not the same. */
static void copy_pages(struct incoming *in)
{
	u64 size = in->handover->ram_size;
	int fd = memfd_new("guest-ram-copy", size);
	u8 *copy = ram_map(fd, size);

	memcpy(copy, in->ram, size);
	in->ram = copy;
	in->ram_fd = fd;
}

static void compare_pfns(struct incoming *in)
{
	u64 pages = in->handover->pages;
	u64 *pfns = must_be_memory(calloc(pages, sizeof(u64)));

	ram_read_pfns(in->ram, pages, pfns);
	report_pfn_difference(handover_pfns(in->handover), pfns, pages);
	report_pfns(pfns, pages);
	free(pfns);
}

static pid_t start_qemu(struct incoming *in)
{
	struct qemu_config config = {
		.qmp = "qmp.incoming",
		.ram_fd = in->ram_fd >= 0 ? in->ram_fd : NO_FILE,
		.ram_size = in->handover->ram_size,
		.state_fd = in->state_fd,
		.vcpus = in->handover->vcpus,
		.nonce = in->nonce,
		.stopped = true,
		.incoming = !param_control("cold-guest"),
	};

	report_uri(in->state_fd, in->handover->ram_size);
	return qemu_start(&config);
}

static void resume(struct incoming *in)
{
	in->ram = ram_map(in->ram_fd, in->handover->ram_size);
	if (param_control("pages-copied"))
		copy_pages(in);
	start_qemu(in);
	/* Meanwhile: until it has loaded a state, QEMU leaves RAM alone. */
	if (proof_wanted())
		compare_ram(in);
	await("qmp");
	await("resume");
	fact_counter("resumed", read_counter());
	report_free_memory("resuming");
	if (proof_wanted())
		compare_pfns(in);
	await_guest("swept", in->handover->ram_size);
	if (!param_control("session-unfinished"))
		fact("finish", "%d", luo_finish(in->session_fd));
	await_guest("swept-again", in->handover->ram_size);
}

/* TAINT_USER: "userspace asked for it" */
static int taint_kernel(void)
{
	int fd = must(sys(open("/proc/sys/kernel/tainted", O_WRONLY | O_CLOEXEC)));
	int ret = sys(write(fd, "64", 2));

	close(fd);
	return ret;
}

static int resume_from_place(struct incoming *in)
{
	struct qemu_config config = {
		.ram_size = guest_ram_size(),
		.state_fd = -1,
		.vcpus = param_u64("vcpus", 1),
		.nonce = in->nonce,
	};

	place_prepare();
	if (param_u64("large_pages", 1))
		allow_large_pages();
	config.ram_fd = ram_new(config.ram_size);
	return load_from_place(config);
}

static int after_kexec(void)
{
	static struct incoming in;

	in.nonce = param_nonce();
	if (param_control("tainted"))
		must(taint_kernel());
	in.luo_fd = luo_must_open();
	qemu_mount();
	if (!proof_wanted())
		watch_free_memory();
	if (place_wanted())
		return resume_from_place(&in);
	if (!retrieve(&in))
		return 0;
	if (in.ram_fd >= 0) {
		resume(&in);
		return 0;
	}
	/* Without the RAM it must not start, and say why. */
	must_be(qemu_ended(start_qemu(&in), QEMU_REFUSES_MS), "QEMU runs without the RAM");
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};
