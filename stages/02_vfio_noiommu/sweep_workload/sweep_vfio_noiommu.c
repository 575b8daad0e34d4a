// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each call of a device's life in a session. In the incoming kernel a device is
 * retrieved once, so that there are some for each kind of what fails: a call is
 * made until it goes through, and the next device goes on where that was although
 * something failed in it.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommufd.h"
#include "nic.h"
#include "sweep.h"
#include "swept_device.h"
#include "vfio.h"

#define COUNT 256
#define TOKEN_MEMORY 1
#define TOKEN_DEVICE 2

/* common/dma/igb.py: igb_pairs(), as vfio_noiommu/swept.py has them in the machine. */
#define DEVICES 26
#define BEHIND_SWITCH 16
#define FIRST_BUS 3
#define FIRST_ROOT_SLOT 4

/**
 * struct owned - a device, its memory, and the session of both
 * @description: of the ring, which nobody reads
 */
static struct owned {
	struct swept_device at;
	struct nic nic;
	int session;
	union {
		struct ring ring;
		u8 room[sizeof(struct ring) + RING_MAX / RING_PAGE_BUFFERS *
			sizeof(struct ring_page)];
	} description;
} devices[DEVICES];

/* Of calls of which each has a session of its own, a device each: what one spoils is its own. */
static struct owned *const for_preserve = &devices[DEVICES - 1];
static struct owned *const for_close = &devices[DEVICES - 2];

static void map_memory(struct owned *device, int memfd)
{
	struct nic *nic = &device->nic;

	nic->bdf = device->at.bdf;
	nic->ring = &device->description.ring;
	nic->size = ring_area_size(COUNT);
	nic->memfd = memfd;
	nic->memory = mmap(NULL, nic->size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	must_be(nic->memory != MAP_FAILED, "%s", errno_name(-errno));
}

static void start(struct owned *device, enum fail_kind, int)
{
	int memfd = must(sys(memfd_create("swept", MFD_CLOEXEC)));

	must(sys(ftruncate(memfd, ring_area_size(COUNT))));
	map_memory(device, memfd);
	memset(device->nic.memory, 0, device->nic.size);
	nic_open(&device->nic);
	nic_place_ring(&device->nic, 0, COUNT, param_nonce());
	nic_start(&device->nic);
	device->at.igb = device->nic.igb;
	swept_remember(&device->at);
}

static int preserve(void *argument)
{
	const struct owned *device = argument;

	return luo_preserve_fd(device->session, device->nic.device, TOKEN_DEVICE);
}

static void create_session(struct owned *device, int luo_fd, const char *name)
{
	device->session = must(luo_create_session(luo_fd, name));
	must(luo_preserve_fd(device->session, device->nic.memfd, TOKEN_MEMORY));
}

/* Who is told that a device is preserved may rely on it. */
static int is_preserved(const struct owned *device)
{
	return vfio_reset(device->nic.device) == -EBUSY ? 0 : -EBADE;
}

static void preserve_device(struct point *point, int luo_fd)
{
	struct owned *device = for_preserve;

	create_session(device, luo_fd, "sweep");
	point_arm(point);
	if (point_cut(point, preserve(device)) < 0) {
		swept_look(point, &device->at);
		point_step(point, "again", preserve(device));
	}
	point_step(point, "preserved", is_preserved(device));
	close(device->session);
	swept_look(point, &device->at);
}

static void close_preserved(struct point *point, int luo_fd)
{
	struct owned *device = for_close;

	create_session(device, luo_fd, "sweep");
	must(preserve(device));
	point_arm(point);
	point_cut_for_good(point, sys(close(device->session)));
	swept_look(point, &device->at);
	create_session(device, luo_fd, "sweep");
	point_step(point, "preserve", preserve(device));
	point_step(point, "preserved", is_preserved(device));
	close(device->session);
}

static const struct call outgoing_calls[] = {
	{ "preserve_device", preserve_device },
	{ "close_preserved", close_preserved },
	{ NULL, NULL },
};

/* The calls that a device goes through once, in their order. */

static int make_bind(void *argument)
{
	return swept_bind(&((struct owned *)argument)->at);
}

static int make_retrieve(void *argument)
{
	struct owned *device = argument;

	device->nic.device = luo_retrieve_fd(device->session, TOKEN_DEVICE);
	return device->nic.device;
}

static int make_open(void *argument)
{
	const struct nic *nic = &((struct owned *)argument)->nic;

	return vfio_bind(nic->device, nic->iommufd);
}

static int make_map(void *argument)
{
	const struct nic *nic = &((struct owned *)argument)->nic;

	return iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, nic->size, NIC_IOVA);
}

static int make_attach(void *argument)
{
	const struct nic *nic = &((struct owned *)argument)->nic;

	return vfio_attach(nic->device, nic->ioas);
}

static int make_finish(void *argument)
{
	return luo_finish(((struct owned *)argument)->session);
}

static void look(struct point *point, void *device)
{
	swept_look(point, &((struct owned *)device)->at);
}

static void look_incoming(struct point *point, void *device)
{
	swept_look_incoming(point, &((struct owned *)device)->at);
}

static void look_unbound(struct point *point, void *device)
{
	swept_look_unbound(point, &((struct owned *)device)->at);
}

static struct last_call preserve_kept = {
	.name = "preserve_kept", .make = preserve, .look = look,
};

/* In the incoming kernel. */
enum step { BIND, RETRIEVE, OPEN, MAP, ATTACH, FINISH, NR_STEPS };

static struct last_call steps[NR_STEPS] = {
	[BIND] = { .name = "bind_device", .make = make_bind, .look = look_unbound },
	[RETRIEVE] = { .name = "retrieve_device", .make = make_retrieve, .look = look_incoming },
	[OPEN] = { .name = "open_device", .make = make_open, .look = look_incoming },
	[MAP] = { .name = "map_memory", .make = make_map, .look = look_incoming },
	[ATTACH] = { .name = "attach_device", .make = make_attach, .look = look_incoming },
	[FINISH] = { .name = "finish", .make = make_finish, .look = look_incoming },
};

static void for_each_device(void (*act)(struct owned *device, enum fail_kind kind, int luo_fd),
			    int luo_fd)
{
	for (unsigned int i = 0; i < DEVICES; i++)
		act(&devices[i], swept_kind(i), luo_fd);
}

/* Two functions behind each port of a switch, and two in every second slot of the root. */
static void name_devices(void)
{
	for (unsigned int i = 0; i < DEVICES; i++) {
		bool on_root = i >= BEHIND_SWITCH;
		unsigned int pair = (on_root ? i - BEHIND_SWITCH : i) / 2;

		swept_name(&devices[i].at, on_root ? 0 : FIRST_BUS + pair,
			   on_root ? FIRST_ROOT_SLOT + 2 * pair : 0, i % 2);
	}
}

/* Its session has its address for a name. */
static void keep(struct owned *device, enum fail_kind kind, int luo_fd)
{
	int ret;

	create_session(device, luo_fd, device->at.bdf);
	ret = sweep_last_call(&preserve_kept, kind, device);
	if (ret < 0)
		swept_say(&device->at, preserve_kept.name, ret);
}

static int before_kexec(void)
{
	int luo_fd = luo_must_open();

	say_kho_tree();
	name_devices();
	for_each_device(start, luo_fd);
	sweep_begin();
	sweep_calls(outgoing_calls, NULL, luo_fd);
	report_leaks();
	for_each_device(keep, luo_fd);
	sweep_say_last_call(&preserve_kept);
	must(kexec_load_incoming());
	return sweep_reboot(luo_fd);
}

/* -errno of the first step that cannot be made any more. */
static int take_over(struct owned *device, enum fail_kind kind)
{
	struct nic *nic = &device->nic;

	nic->iommufd = must(iommufd_open());
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	for (enum step step = 0; step < NR_STEPS; step++) {
		int ret = sweep_last_call(&steps[step], kind, device);

		if (ret < 0)
			return ret;
		if (step == OPEN)
			swept_map_registers(&device->at, nic->device);
	}
	return 0;
}

/* What was taken over is an ordinary device by now, for whoever wants it. */
static void take(struct owned *device, enum fail_kind kind, int luo_fd)
{
	int ret;

	device->session = must(luo_retrieve_session(luo_fd, device->at.bdf));
	map_memory(device, must(luo_retrieve_fd(device->session, TOKEN_MEMORY)));
	swept_meet(&device->at);
	ret = take_over(device, kind);
	swept_say(&device->at, "taken_over", ret);
	if (ret < 0)
		return;
	must(vfio_reset(device->nic.device));
	swept_unmap_registers(&device->at);
	close(device->nic.device);
	close(device->nic.iommufd);
	close(device->session);
	swept_use(&device->at);
}

static int after_kexec(void)
{
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
