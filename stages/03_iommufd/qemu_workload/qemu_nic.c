// SPDX-License-Identifier: GPL-2.0-only
/*
 * Stage 3 with QEMU: a Linux guest drives a device that is passed through to
 * it, by its own driver and with interrupts. QEMU, unchanged, saves the guest
 * and leaves its descriptors to this program by its own cpr-exec; they cross
 * the kexec in a session, and another QEMU goes on with them. Both sides of
 * the kexec are in this file. What QEMU does, the host tells it over QMP, at
 * the rendezvous.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "guest_nic.h"
#include "guest_ram.h"
#include "hwpt.h"
#include "iommufd.h"
#include "nic.h"
#include "qemu_process.h"
#include "take.h"
#include "vfio.h"

#define QEMU_SESSION "kexec-stages"
#define OTHER_DEVICE "0000:02:00.0"
/* Of the other device, which nobody refills. */
#define OTHER_DESCRIPTORS 512

/* More than the host waits for the guest; see common/guest/qemu.py */
#define GUEST_MS 120000
#define GUEST_MS_PER_GIB 160000
#define EXEC_ENDED_MS 5000

#define SAID_US 100000
/* More than there are frames in that time. */
#define MADE_UP 3000
#define MADE_UP_US 1000

/* Where no guest has memory. For a control. */
#define MORE_IOVA (1ull << 38)

static const u32 irq_indices[] = {
	VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX,
};

static u64 guest_ram_size(void)
{
	return param_u64("guest_memory", 192) << 20;
}

static bool guest_is_q35(void)
{
	char machine[16];

	return param_get("guest_machine", machine, sizeof(machine)) && !strcmp(machine, "q35");
}

static void await_guest(const char *name)
{
	await_within(name, GUEST_MS + GUEST_MS_PER_GIB * guest_ram_size() / (1ull << 30));
}

static u64 file_size(int fd)
{
	struct stat stat;

	must(sys(fstat(fd, &stat)));
	return stat.st_size;
}

/* Where the host is to tell QEMU to save to, or to load from. */
static void report_uri(int fd)
{
	fact("qemu.uri", "file:/proc/self/fd/%d,offset=%llu", fd, HANDOVER_STREAM);
}

/* Number of the file that QEMU calls so, in the handover's lists. */
static u32 file_of(const struct handover *handover, const char *name, u32 id)
{
	const struct cpr_fd *fd = cpr_find(&handover->state, name, id);

	must_be(fd, "QEMU's state has no %s %u", name, id);
	return fd - handover->state.fds;
}

static u32 only_file(const struct handover *handover, enum file_kind kind)
{
	u32 found = CPR_MAX_FDS;

	for (u32 i = 0; i < handover->state.nr_fds; i++) {
		if (handover->kind[i] != kind)
			continue;
		must_be(found == CPR_MAX_FDS, "more than one: %s", handover->state.fds[i].name);
		found = i;
	}
	must_be(found < CPR_MAX_FDS, "none of kind %d", kind);
	return found;
}

/* Where each page of the guest's RAM is in the machine; it is said as well. */
static void read_ram_pfns(int ram_fd, u64 size, u64 *pfns)
{
	u64 pages = size / GUEST_PAGE_SIZE;
	u8 *ram = ram_map(ram_fd, size);

	must(sys(madvise(ram, size, MADV_POPULATE_READ)));
	ram_read_pfns(ram, pages, pfns);
	report_pfns(pfns, pages);
	must(sys(munmap(ram, size)));
}

static u64 *map_pfns(int fd, u64 ram_size)
{
	u64 *pfns = mmap(NULL, ram_size / GUEST_PAGE_SIZE * sizeof(u64), PROT_READ | PROT_WRITE,
			 MAP_SHARED, fd, 0);

	must_be(pfns != MAP_FAILED, "%s", errno_name(-errno));
	return pfns;
}

/* The outgoing side */

struct outgoing {
	int luo;
	int session;
	pid_t qemu;
	struct igb igb;
	int handover_fd;
	struct handover *handover;
	int files[CPR_MAX_FDS];
	struct nic other;
};

/* The same kind of device, used by this program, but never preserved. */
static void start_other(struct nic *other)
{
	nic_new_memory(other);
	nic_open(other);
	nic_start(other, OTHER_DESCRIPTORS);
	fact("other.ring.iova", "0x%llx", IOVA + DESCRIPTORS);
	fact("other.ring.count", "%u", COUNT);
}

static void start_guest(struct outgoing *out)
{
	struct qemu_config config = {
		.qmp = "qmp.outgoing",
		.ram_fd = -1,
		.ram_size = guest_ram_size(),
		.vcpus = param_u64("vcpus", 1),
		.nonce = param_nonce(),
		.nic = DEVICE,
		.q35 = guest_is_q35(),
	};

	must(pci_driver_bind(DEVICE, "vfio-pci"));
	out->handover = handover_create(&out->handover_fd);
	out->handover->ram_size = config.ram_size;
	out->handover->vcpus = config.vcpus;
	config.state_fd = out->handover_fd;
	out->qemu = qemu_start(&config);
	fact("guest.memory_mib", "%llu", config.ram_size >> 20);
	fact("guest.pages", "%llu", config.ram_size / GUEST_PAGE_SIZE);
	fact("guest.vcpus", "%llu", config.vcpus);
	await_guest("qmp");
	must_be(!qemu_ended(out->qemu, 0), "QEMU has ended");
	await_guest("guest");
	guest_nic_map(&out->igb);
	guest_nic_mark(&out->igb);
	guest_nic_report_ring(&out->igb);
}

/* QEMU stops the guest, saves it, and becomes the program that was named to it. */
static void save(struct outgoing *out)
{
	struct handover *handover = out->handover;
	const char *refused;
	int ret;

	report_uri(out->handover_fd);
	if (param_control("qemu-killed"))
		must(sys(kill(out->qemu, SIGKILL)));
	await_guest("save");
	ret = take_state(out->qemu, &handover->state);
	fact("cpr.state", "%d", ret);
	if (ret < 0) {
		qemu_ended(out->qemu, EXEC_ENDED_MS);
		bail("QEMU has not become " HELPER);
	}
	fact_counter("saved", read_counter());
	/* The last byte of its version. */
	if (param_control("other-version"))
		handover->state.bytes[7]++;
	refused = cpr_parse(&handover->state);
	must_be(!refused, "QEMU's CPR state is none of 11.1: %s", refused);
	take_files(out->qemu, handover, out->files);
	areas_read(handover);
	handover->stream_size = file_size(out->handover_fd) - HANDOVER_STREAM;
	fact("cpr.bytes", "%zu", handover->state.size);
	fact("cpr.files", "%u", handover->state.nr_fds);
	fact("cpr.areas", "%u", handover->nr_areas);
	fact("cpr.mapped", "%llu", areas_size(handover, false));
	fact("cpr.read_only", "%llu", areas_size(handover, true));
	fact("state.bytes", "%llu", handover->stream_size);
}

static int file_by_number(const struct handover *handover, const int *files, int number)
{
	for (u32 i = 0; i < handover->state.nr_fds; i++)
		if (handover->state.fds[i].number == number && handover->kind[i] == FILE_MEMFD)
			return files[i];
	bail("QEMU mapped its descriptor %d, which is not in its state", number);
}

/* Control area-more: a page is mapped of which nobody says anything. */
static void map_extra(const struct handover *handover, const int *files, int iommufd, u32 ioas)
{
	const struct area *area = &handover->area[0];

	if (param_control("area-more"))
		must(iommufd_map_file(iommufd, ioas, file_by_number(handover, files, area->number),
				      area->start, GUEST_PAGE_SIZE, MORE_IOVA));
}

/* For the proof: where the guest's RAM is. The NIC has it pinned, so that it stays there. */
static void preserve_pfns(const struct outgoing *out, int ram_fd)
{
	u64 size = out->handover->ram_size;
	int fd = memfd_new("pfns", size / GUEST_PAGE_SIZE * sizeof(u64));

	read_ram_pfns(ram_fd, size, map_pfns(fd, size));
	must(luo_preserve_fd(out->session, fd, TOKEN_PFNS));
}

/* While the guest runs: what its memory is made of does not change any more. */
static void preserve_memory(struct outgoing *out)
{
	u64 start = now_us();
	int numbers[CPR_MAX_FDS];
	size_t count;

	out->session = must(luo_create_session(out->luo, QEMU_SESSION));
	count = list_memfds(out->qemu, numbers, ARRAY_SIZE(numbers));
	for (size_t i = 0; i < count; i++) {
		int fd = take_file(out->qemu, numbers[i]);
		/* The others are firmware and tables for it. */
		bool ram = file_size(fd) == out->handover->ram_size;

		if (!ram || !param_control("ram-not-preserved"))
			must(luo_preserve_fd(out->session, fd, TOKEN_FILES + numbers[i]));
		if (ram)
			preserve_pfns(out, fd);
		close(fd);
	}
	fact("preserve.memory.us", "%llu", now_us() - start);
	fact("preserve.memfds", "%zu", count);
}

static u32 count_vectors(const struct handover *handover)
{
	char name[80];
	u32 count = 0;

	snprintf(name, sizeof(name), "%s_interrupt", handover->state.device.name);
	while (cpr_find(&handover->state, name, count))
		count++;
	return count;
}

/* A device with interrupts on cannot be handed over. */
static void interrupts_off(struct outgoing *out)
{
	int device = out->files[only_file(out->handover, FILE_DEVICE)];

	out->handover->nr_vectors = count_vectors(out->handover);
	fact("irq.vectors", "%u", out->handover->nr_vectors);
	report_vfio_info(device);
	for (size_t i = 0; i < ARRAY_SIZE(irq_indices); i++)
		must(vfio_clear_irqs(device, irq_indices[i]));
	fact_counter("interrupts_off", read_counter());
}

static void preserve(struct outgoing *out)
{
	const struct handover *handover = out->handover;
	int iommufd = out->files[only_file(handover, FILE_IOMMUFD)];
	int device = out->files[only_file(handover, FILE_DEVICE)];
	int ret;

	map_extra(handover, out->files, iommufd, handover->state.device.ioas);
	fact("mark", "%d", iommufd_hwpt_mark(iommufd, handover->state.device.hwpt, TOKEN_HWPT));
	ret = luo_preserve_fd(out->session, iommufd, TOKEN_QEMU_IOMMUFD);
	fact("preserve.iommufd", "%d", ret);
	if (!param_control("device-not-preserved")) {
		ret = luo_preserve_fd(out->session, device, TOKEN_QEMU_DEVICE);
		fact("preserve.device", "%d", ret);
	}
	must(luo_preserve_fd(out->session, out->handover_fd, TOKEN_HANDOVER));
	fact_counter("preserved", read_counter());
}

static int before_kexec(void)
{
	static struct outgoing out = { .other = { .bdf = OTHER_DEVICE, .canary = -1 } };
	u64 start;
	u32 head;

	iommufd_allow_no_remapping();
	out.luo = luo_must_open();
	qemu_mount();
	allow_large_pages();
	start_other(&out.other);
	start_guest(&out);
	await("traffic");
	await_guest("received");
	start = now_us();
	head = igb_rx_head(&out.igb);
	must(kexec_load_incoming());
	fact("load.us", "%llu", now_us() - start);
	fact("load.frames", "%u", (igb_rx_head(&out.igb) + out.igb.count - head) % out.igb.count);
	fact_counter("loaded", read_counter());
	preserve_memory(&out);
	await("loaded");
	save(&out);
	interrupts_off(&out);
	head = igb_rx_head(&out.igb);
	preserve(&out);
	fact("preserve.frames", "%u",
	     (igb_rx_head(&out.igb) + out.igb.count - head) % out.igb.count);
	igb_report(&out.igb, DEVICE);
	await("snapshot-outgoing");
	return leave_kernel();
}

/* The incoming side */

struct incoming {
	int luo;
	int session;
	int handover_fd;
	struct handover *handover;
	int pfns_fd;
	int files[CPR_MAX_FDS];
	int iommufd;
	int device;
	u32 dev_id;
	u32 ioas;
	u32 hwpt;
	/* What interrupts the guest, vector by vector. */
	int vectors[CPR_MAX_FDS];
	struct igb igb;
};

static int retrieve_fd(struct incoming *in, u64 token, const char *key)
{
	int fd = luo_retrieve_fd(in->session, token);

	fact(key, "%d", fd < 0 ? fd : 0);
	return fd;
}

/* True when there is all that QEMU is to have. */
static bool retrieve(struct incoming *in)
{
	const char *refused;
	int worst = 0;

	in->session = luo_retrieve_session(in->luo, QEMU_SESSION);
	fact("retrieve.session", "%d", in->session < 0 ? in->session : 0);
	if (in->session < 0)
		return false;
	in->handover_fd = retrieve_fd(in, TOKEN_HANDOVER, "retrieve.handover");
	if (in->handover_fd < 0)
		return false;
	in->handover = handover_map(in->handover_fd);
	refused = handover_refused(in->handover, file_size(in->handover_fd)) ?:
		  cpr_parse(&in->handover->state);
	if (refused) {
		fact("retrieve.handover_refused", "%s", refused);
		return false;
	}
	for (u32 i = 0; i < in->handover->state.nr_fds; i++) {
		if (in->handover->kind[i] != FILE_MEMFD)
			continue;
		in->files[i] = luo_retrieve_fd(in->session,
					       TOKEN_FILES + in->handover->state.fds[i].number);
		if (in->files[i] < 0)
			worst = in->files[i];
	}
	fact("retrieve.ram", "%d", worst);
	in->pfns_fd = retrieve_fd(in, TOKEN_PFNS, "retrieve.pfns");
	in->iommufd = retrieve_fd(in, TOKEN_QEMU_IOMMUFD, "retrieve.iommufd");
	must(pci_driver_bind(DEVICE, "vfio-pci"));
	in->device = retrieve_fd(in, TOKEN_QEMU_DEVICE, "retrieve.device");
	fact_counter("retrieved", read_counter());
	return !worst && in->pfns_fd >= 0 && in->iommufd >= 0 && in->device >= 0;
}

/* As QEMU had mapped it: iommufd compares that with the page table that is in use. */
static void map_areas(struct incoming *in)
{
	in->ioas = must(iommufd_ioas_alloc(in->iommufd));
	for (u32 i = 0; i < in->handover->nr_areas; i++) {
		const struct area *area = &in->handover->area[i];
		int fd = file_by_number(in->handover, in->files, area->number);
		u64 start = area->start, size = area->size;

		if (!i && param_control("area-elsewhere")) {
			start += GUEST_PAGE_SIZE;
			size -= GUEST_PAGE_SIZE;
		}
		must((area->read_only ? iommufd_map_file_read_only : iommufd_map_file)(
			in->iommufd, in->ioas, fd, start, size, area->iova));
	}
	map_extra(in->handover, in->files, in->iommufd, in->ioas);
}

/* True when the device and its page table are this kernel's, as they were. */
static bool take_over(struct incoming *in)
{
	int ret;

	ret = vfio_bind_id(in->device, in->iommufd, &in->dev_id);
	fact("bind.device", "%d", ret);
	if (ret < 0)
		return false;
	map_areas(in);
	ret = iommufd_hwpt_restore(in->iommufd, in->dev_id, in->ioas, TOKEN_HWPT);
	fact("restore.hwpt", "%d", ret < 0 ? ret : 0);
	if (ret < 0)
		return false;
	in->hwpt = ret;
	ret = vfio_attach(in->device, in->hwpt);
	fact("attach.device", "%d", ret);
	if (ret < 0)
		return false;
	fact_counter("adopted", read_counter());
	fact("finish", "%d", luo_finish(in->session));
	fact_counter("finished", read_counter());
	return true;
}

static void compare_pfns(const struct incoming *in)
{
	u64 size = in->handover->ram_size, pages = size / GUEST_PAGE_SIZE;
	u64 *pfns = must_be_memory(calloc(pages, sizeof(u64)));

	read_ram_pfns(in->files[file_of(in->handover, "ram", 0)], size, pfns);
	report_pfn_difference(map_pfns(in->pfns_fd, size), pfns, pages);
	free(pfns);
}

/* A new eventfd for each that QEMU had. */
static void make_eventfds(struct incoming *in)
{
	for (u32 i = 0; i < in->handover->state.nr_fds; i++)
		if (in->handover->kind[i] == FILE_EVENTFD)
			in->files[i] = must(sys(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)));
}

static int eventfd_of(const struct incoming *in, const char *what, u32 id)
{
	char name[80];
	const struct cpr_fd *fd;

	snprintf(name, sizeof(name), "%s_%s", in->handover->state.device.name, what);
	fd = cpr_find(&in->handover->state, name, id);
	return fd ? in->files[fd - in->handover->state.fds] : -1;
}

/* Control not-injected: QEMU's igb remembers what it could not say while MSI-X was off. */
static void throw_away(const struct incoming *in)
{
	u64 count, events = 0;

	usleep(SAID_US);
	for (u32 i = 0; i < in->handover->nr_vectors; i++)
		if (read(in->vectors[i], &count, sizeof(count)) == sizeof(count))
			events += count;
	fact("irq.thrown_away", "%llu", events);
}

/* Each vector as QEMU had it: straight into the guest where KVM has a route for it. */
static void set_interrupts(struct incoming *in)
{
	u32 count = in->handover->nr_vectors;

	for (u32 i = 0; i < count; i++) {
		in->vectors[i] = eventfd_of(in, "kvm_interrupt", i);
		if (in->vectors[i] < 0)
			in->vectors[i] = eventfd_of(in, "interrupt", i);
	}
	if (param_control("interrupts-left"))
		return;
	must(vfio_set_irq_eventfds(in->device, VFIO_PCI_MSIX_IRQ_INDEX, in->vectors, count));
	must(vfio_set_irq_eventfd(in->device, VFIO_PCI_ERR_IRQ_INDEX,
				  eventfd_of(in, "err_notifier", 0)));
	must(vfio_set_irq_eventfd(in->device, VFIO_PCI_REQ_IRQ_INDEX,
				  eventfd_of(in, "req_notifier", 0)));
	fact_counter("interrupts_on", read_counter());
	if (param_control("not-injected"))
		throw_away(in);
}

static void start_qemu(struct incoming *in)
{
	static struct qemu_fd fds[CPR_MAX_FDS + 1];
	struct handover *handover = in->handover;
	struct cpr_state *state = &handover->state;
	struct qemu_config config = {
		.qmp = "qmp.incoming",
		.ram_fd = -1,
		.ram_size = handover->ram_size,
		.state_fd = in->handover_fd,
		.vcpus = handover->vcpus,
		.nonce = param_nonce(),
		.nic = DEVICE,
		.q35 = guest_is_q35(),
		.stopped = true,
		.incoming = true,
		.fds = fds,
		.nr_fds = state->nr_fds + 1,
	};
	int highest = 0;

	in->files[only_file(handover, FILE_IOMMUFD)] = in->iommufd;
	in->files[only_file(handover, FILE_DEVICE)] = in->device;
	cpr_set_ids(state, in->dev_id, in->ioas, in->hwpt);
	for (u32 i = 0; i < state->nr_fds; i++) {
		fds[i] = (struct qemu_fd){ in->files[i], state->fds[i].number };
		if (fds[i].number > highest)
			highest = fds[i].number;
	}
	config.cpr_state = highest + 1;
	fds[state->nr_fds].fd = memfd_new("cpr-state", 0);
	fds[state->nr_fds].number = config.cpr_state;
	must(sys(pwrite(fds[state->nr_fds].fd, state->bytes, state->size, 0)));
	report_uri(in->handover_fd);
	qemu_start(&config);
	/* The vectors' eventfds and the RAM are needed once more. */
	for (u32 i = 0; i < config.nr_fds; i++)
		if (i == state->nr_fds || (handover->kind[i] != FILE_EVENTFD &&
					   strcmp(state->fds[i].name, "ram")))
			close(fds[i].fd);
}

/*
 * What the device had to say while nobody listened may be lost (QEMU's igb
 * remembers it, real ones need not), and its driver waits for it. So each vector interrupts the guest once, as the device would
 * have; an interrupt too many does no harm. It has to be after QEMU has loaded the guest's interrupt
 * controllers: an earlier one would be overwritten.
 */
static void inject_interrupts(const struct incoming *in)
{
	u32 count = param_control("not-injected") ? 0 : in->handover->nr_vectors;
	const u64 one = 1;

	for (u32 i = 0; i < count; i++)
		must(sys(write(in->vectors[i], &one, sizeof(one))));
	fact("irq.injected", "%u", count);
}

/* Control interrupts-made-up: more than anybody says. */
static void make_up_interrupts(const struct incoming *in)
{
	const u64 one = 1;

	for (u32 n = 0; param_control("interrupts-made-up") && n < MADE_UP; n++) {
		must(sys(write(in->vectors[n % in->handover->nr_vectors], &one, sizeof(one))));
		usleep(MADE_UP_US);
	}
}

/* Control config-written: of all registers, one that changes nothing. */
static void write_config(void)
{
	const u8 size = 16;

	if (param_control("config-written"))
		must(pci_config_write(DEVICE, PCI_CACHE_LINE_SIZE, &size, sizeof(size)));
}

static int after_kexec(void)
{
	static struct incoming in = { .iommufd = -1, .device = -1 };

	iommufd_allow_no_remapping();
	in.luo = luo_must_open();
	qemu_mount();
	qemu_read_ahead();
	allow_large_pages();
	await("snapshot-booted");
	if (!param_control("other-left"))
		nic_force_mastering(OTHER_DEVICE);
	if (!retrieve(&in) || !take_over(&in)) {
		await("silence");
		return 0;
	}
	await("snapshot-adopted");
	write_config();
	guest_nic_map(&in.igb);
	guest_nic_report_ring(&in.igb);
	igb_report(&in.igb, DEVICE);
	report_vfio_info(in.device);
	make_eventfds(&in);
	set_interrupts(&in);
	start_qemu(&in);
	await_guest("qmp");
	await_guest("resume");
	inject_interrupts(&in);
	fact_counter("resumed", read_counter());
	compare_pfns(&in);
	await("gap-read");
	dialogue_line("# at gap-read");
	make_up_interrupts(&in);
	await_guest("swept");
	await("snapshot-finished");
	await("silence");
	await_guest("counted");
	return 0;
}

/* QEMU has become this program, by cpr-exec: it keeps the descriptors open until they are taken. */
static int keep_descriptors(void)
{
	pause();
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
	.helper = keep_descriptors,
};
