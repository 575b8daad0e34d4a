// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each call of the life of an iommufd, its marked HWPT and its device in a
 * session. As in stage 2 there are several devices, each with all of it, because
 * in the incoming kernel a call goes through once.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "hwpt.h"
#include "iommufd.h"
#include "sweep.h"
#include "swept_device.h"
#include "vfio.h"

#define IOVA (1ull << 40)
#define SIZE (16ull * RING_PAGE_SIZE)
#define SCRATCH 0x5afe1234
/* The fewest that there can be; nobody receives. */
#define DESCRIPTORS 8

enum token { TOKEN_MEMORY = 1, TOKEN_IOMMUFD, TOKEN_DEVICE };
#define TOKEN_HWPT 0x4000

/* common/dma/igb.py: igb_behind_ports(), as iommufd/swept.py has them in the machine. */
#define DEVICES 13
#define BEHIND_PORTS 8
#define FIRST_BUS 1
#define FIRST_ROOT_SLOT 4

/* A device, what it is attached to, and the session of all. */
static struct owned {
	struct swept_device at;
	int session, memfd, iommufd, file;
	u32 dev_id, ioas, hwpt;
	long long tables;
} devices[DEVICES];

/* Of calls of which each has a session of its own, a device each: what one spoils is its own. */
static struct owned *const for_iommufd = &devices[DEVICES - 1];
static struct owned *const for_device = &devices[DEVICES - 2];
static struct owned *const for_close = &devices[DEVICES - 3];

static void new_memory(struct owned *device)
{
	u8 *memory;

	device->memfd = must(sys(memfd_create("swept", MFD_CLOEXEC)));
	must(sys(ftruncate(device->memfd, SIZE)));
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device->memfd, 0);
	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	memset(memory, 0, SIZE);
	must(sys(munmap(memory, SIZE)));
}

/* Set up to receive, with a descriptor ring that nobody fills. */
static void start_receiver(struct owned *device)
{
	struct igb *igb = &device->at.igb;
	u16 command;

	must(vfio_config_read(device->file, PCI_COMMAND, &command, sizeof(command)));
	command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	must(vfio_config_write(device->file, PCI_COMMAND, &command, sizeof(command)));
	must(igb_reset(igb));
	must(igb_link_up(igb));
	igb_set_scratch(igb, SCRATCH);
	igb->count = DESCRIPTORS;
	igb_rx_start(igb, IOVA);
}

/* What the IOMMU's tables take, all CPUs' shares added up. */
static long long tables(void)
{
	refresh_counters();
	return iommu_pages();
}

static void remember(struct owned *device)
{
	swept_remember(&device->at);
	device->tables = tables();
}

static void look_at_tables(struct point *point, struct owned *device)
{
	long long now = tables();

	point_step(point, "tables", now == device->tables ? 0 : -EEXIST);
	device->tables = now;
}

static void look(struct point *point, void *argument)
{
	struct owned *device = argument;

	swept_look(point, &device->at);
	look_at_tables(point, device);
}

static void start(struct owned *device, enum fail_kind, int)
{
	new_memory(device);
	must(pci_driver_bind(device->at.bdf, "vfio-pci"));
	device->iommufd = must(iommufd_open());
	device->file = must(vfio_cdev_open(device->at.bdf));
	must(vfio_bind_id(device->file, device->iommufd, &device->dev_id));
	device->ioas = must(iommufd_ioas_alloc(device->iommufd));
	must(iommufd_map_file(device->iommufd, device->ioas, device->memfd, 0, SIZE, IOVA));
	device->hwpt = must(iommufd_hwpt_alloc(device->iommufd, device->dev_id, device->ioas));
	must(vfio_attach(device->file, device->hwpt));
	swept_map_registers(&device->at, device->file);
	start_receiver(device);
}

static int make_mark(void *argument)
{
	const struct owned *device = argument;

	return iommufd_hwpt_mark(device->iommufd, device->hwpt, TOKEN_HWPT);
}

static int preserve_iommufd(void *argument)
{
	const struct owned *device = argument;

	return luo_preserve_fd(device->session, device->iommufd, TOKEN_IOMMUFD);
}

static int preserve_device(void *argument)
{
	const struct owned *device = argument;

	return luo_preserve_fd(device->session, device->file, TOKEN_DEVICE);
}

static void create_session(struct owned *device, int luo_fd, const char *name)
{
	device->session = must(luo_create_session(luo_fd, name));
	must(luo_preserve_fd(device->session, device->memfd, TOKEN_MEMORY));
}

/* Who is told that something is preserved may rely on it. */
static int is_preserved(const struct owned *device)
{
	return vfio_reset(device->file) == -EBUSY ? 0 : -EBADE;
}

static int is_frozen(const struct owned *device)
{
	int ret = iommufd_unmap(device->iommufd, device->ioas, IOVA, SIZE);

	return ret < 0 ? 0 : -EBADE;
}

static void cut_iommufd(struct point *point, int luo_fd)
{
	struct owned *device = for_iommufd;

	create_session(device, luo_fd, "sweep");
	remember(device);
	point_arm(point);
	if (point_cut(point, preserve_iommufd(device)) < 0) {
		look(point, device);
		point_step(point, "again", preserve_iommufd(device));
	}
	point_step(point, "frozen", is_frozen(device));
	point_step(point, "device", preserve_device(device));
	close(device->session);
	look(point, device);
}

static void cut_device(struct point *point, int luo_fd)
{
	struct owned *device = for_device;

	create_session(device, luo_fd, "sweep");
	must(preserve_iommufd(device));
	remember(device);
	point_arm(point);
	if (point_cut(point, preserve_device(device)) < 0) {
		look(point, device);
		point_step(point, "again", preserve_device(device));
	}
	point_step(point, "preserved", is_preserved(device));
	point_step(point, "frozen", is_frozen(device));
	close(device->session);
	look(point, device);
}

static void cut_close(struct point *point, int luo_fd)
{
	struct owned *device = for_close;

	create_session(device, luo_fd, "sweep");
	must(preserve_iommufd(device));
	must(preserve_device(device));
	point_arm(point);
	point_cut_for_good(point, sys(close(device->session)));
	look(point, device);
	create_session(device, luo_fd, "sweep");
	point_step(point, "iommufd", preserve_iommufd(device));
	point_step(point, "device", preserve_device(device));
	point_step(point, "preserved", is_preserved(device));
	close(device->session);
}

static const struct call outgoing_calls[] = {
	{ "preserve_iommufd", cut_iommufd },
	{ "preserve_device", cut_device },
	{ "close_preserved", cut_close },
	{ NULL, NULL },
};

/* The calls that a device goes through once, in their order. */

static int make_retrieve_iommufd(void *argument)
{
	struct owned *device = argument;

	device->iommufd = luo_retrieve_fd(device->session, TOKEN_IOMMUFD);
	return device->iommufd;
}

static int make_bind(void *device)
{
	return swept_bind(&((struct owned *)device)->at);
}

static int make_retrieve_device(void *argument)
{
	struct owned *device = argument;

	device->file = luo_retrieve_fd(device->session, TOKEN_DEVICE);
	return device->file;
}

static int make_open(void *argument)
{
	struct owned *device = argument;

	return vfio_bind_id(device->file, device->iommufd, &device->dev_id);
}

static int make_map(void *argument)
{
	const struct owned *device = argument;

	return iommufd_map_file(device->iommufd, device->ioas, device->memfd, 0, SIZE, IOVA);
}

static int make_restore(void *argument)
{
	struct owned *device = argument;
	int ret = iommufd_hwpt_restore(device->iommufd, device->dev_id, device->ioas, TOKEN_HWPT);

	device->hwpt = ret;
	return ret;
}

static int make_attach(void *argument)
{
	const struct owned *device = argument;

	return vfio_attach(device->file, device->hwpt);
}

static int make_finish(void *device)
{
	return luo_finish(((struct owned *)device)->session);
}

static void look_incoming(struct point *point, void *argument)
{
	struct owned *device = argument;

	swept_look_incoming(point, &device->at);
	look_at_tables(point, device);
}

/* A page table that was restored stays for the next attempt. */
static void look_restored(struct point *point, void *device)
{
	swept_look_incoming(point, &((struct owned *)device)->at);
}

static void look_unbound(struct point *point, void *device)
{
	swept_look_unbound(point, &((struct owned *)device)->at);
}

enum kept_step { MARK, KEEP_IOMMUFD, KEEP_DEVICE, NR_KEPT_STEPS };

static struct last_call kept_steps[NR_KEPT_STEPS] = {
	[MARK] = { .name = "mark_hwpt", .make = make_mark, .look = look },
	[KEEP_IOMMUFD] = { .name = "keep_iommufd", .make = preserve_iommufd, .look = look },
	[KEEP_DEVICE] = { .name = "keep_device", .make = preserve_device, .look = look },
};

/* In the incoming kernel. */
enum step { RETRIEVE_IOMMUFD, BIND, RETRIEVE_DEVICE, OPEN, MAP, RESTORE, ATTACH, FINISH, NR_STEPS };

static struct last_call steps[NR_STEPS] = {
	[RETRIEVE_IOMMUFD] = { .name = "retrieve_iommufd", .make = make_retrieve_iommufd,
			       .look = look_incoming },
	[BIND] = { .name = "bind_device", .make = make_bind, .look = look_unbound },
	[RETRIEVE_DEVICE] = { .name = "retrieve_device", .make = make_retrieve_device,
			      .look = look_incoming },
	[OPEN] = { .name = "open_device", .make = make_open, .look = look_incoming },
	[MAP] = { .name = "map_memory", .make = make_map, .look = look_incoming },
	[RESTORE] = { .name = "restore_hwpt", .make = make_restore, .look = look_restored },
	[ATTACH] = { .name = "attach_device", .make = make_attach, .look = look_incoming },
	[FINISH] = { .name = "finish", .make = make_finish, .look = look_incoming },
};

static void for_each_device(void (*act)(struct owned *device, enum fail_kind kind, int luo_fd),
			    int luo_fd)
{
	for (unsigned int i = 0; i < DEVICES; i++)
		act(&devices[i], swept_kind(i), luo_fd);
}

/* One behind each root port, and one in every second slot of the root. */
static void name_devices(void)
{
	for (unsigned int i = 0; i < DEVICES; i++) {
		if (i < BEHIND_PORTS)
			swept_name(&devices[i].at, FIRST_BUS + i, 0, 0);
		else
			swept_name(&devices[i].at, 0, FIRST_ROOT_SLOT + 2 * (i - BEHIND_PORTS), 0);
	}
}

/* Before anything of it is preserved. */
static void mark(struct owned *device, enum fail_kind kind, int)
{
	remember(device);
	must(sweep_last_call(&kept_steps[MARK], kind, device));
}

/* Its session has its address for a name. */
static void keep(struct owned *device, enum fail_kind kind, int luo_fd)
{
	create_session(device, luo_fd, device->at.bdf);
	for (enum kept_step step = KEEP_IOMMUFD; step < NR_KEPT_STEPS; step++) {
		int ret;

		remember(device);
		ret = sweep_last_call(&kept_steps[step], kind, device);
		if (ret < 0)
			swept_say(&device->at, kept_steps[step].name, ret);
	}
}

static int before_kexec(void)
{
	int luo_fd = luo_must_open();

	say_kho_tree();
	iommufd_allow_no_remapping();
	name_devices();
	for_each_device(start, luo_fd);
	sweep_begin();
	for_each_device(mark, luo_fd);
	sweep_calls(outgoing_calls, NULL, luo_fd);
	report_leaks();
	for_each_device(keep, luo_fd);
	for (enum kept_step step = 0; step < NR_KEPT_STEPS; step++)
		sweep_say_last_call(&kept_steps[step]);
	must(kexec_load_incoming());
	return sweep_reboot(luo_fd);
}

/* -errno of the first step that cannot be made any more. */
static int take_over(struct owned *device, enum fail_kind kind)
{
	for (enum step step = 0; step < NR_STEPS; step++) {
		int ret;

		device->tables = tables();
		ret = sweep_last_call(&steps[step], kind, device);
		if (ret < 0)
			return ret;
		if (step == RETRIEVE_IOMMUFD)
			device->ioas = must(iommufd_ioas_alloc(device->iommufd));
		if (step == OPEN)
			swept_map_registers(&device->at, device->file);
	}
	return 0;
}

/* What was taken over is an ordinary device by now, for whoever wants it. */
static void take(struct owned *device, enum fail_kind kind, int luo_fd)
{
	int ret;

	device->session = must(luo_retrieve_session(luo_fd, device->at.bdf));
	device->memfd = must(luo_retrieve_fd(device->session, TOKEN_MEMORY));
	swept_meet(&device->at);
	ret = take_over(device, kind);
	swept_say(&device->at, "taken_over", ret);
	if (ret < 0)
		return;
	must(vfio_reset(device->file));
	swept_unmap_registers(&device->at);
	close(device->file);
	close(device->iommufd);
	close(device->session);
	swept_use(&device->at);
}

static int after_kexec(void)
{
	iommufd_allow_no_remapping();
	sweep_begin();
	name_devices();
	for_each_device(take, luo_must_open());
	for (enum step step = 0; step < NR_STEPS; step++)
		sweep_say_last_call(&steps[step]);
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};
