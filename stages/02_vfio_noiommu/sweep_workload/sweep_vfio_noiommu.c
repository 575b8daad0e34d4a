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
#include "swept_device.h"
#include "vfio.h"

/* common/dma/igb.py: igb_pairs(), as vfio_noiommu/swept.py has them in the machine. */
#define DEVICES 26
#define BEHIND_SWITCH 16
#define FIRST_BUS 3
#define FIRST_ROOT_SLOT 4
/* The first ones are for copies, then some for pages, and all others for objects of the slab. */
#define FOR_COPIES 2
#define FOR_PAGES 3

static struct swept_device devices[DEVICES];

static enum fail_kind kind_of(unsigned int device)
{
	if (device < FOR_COPIES)
		return FAIL_COPY;
	return device < FOR_COPIES + FOR_PAGES ? FAIL_PAGE : FAIL_SLAB;
}

/* Of calls of which each has a session of its own. */
static struct swept_device *const any_device = &devices[0];

static int preserve(const struct swept_device *device)
{
	return luo_preserve_fd(device->session, device->nic.device, TOKEN_DEVICE);
}

static void create_session(struct swept_device *device, int luo_fd, const char *name)
{
	device->session = must(luo_create_session(luo_fd, name));
	must(luo_preserve_fd(device->session, device->nic.memfd, TOKEN_MEMORY));
}

/* Who is told that a device is preserved may rely on it. */
static int is_preserved(const struct swept_device *device)
{
	return vfio_reset(device->nic.device) == -EBUSY ? 0 : -EBADE;
}

static void preserve_device(struct point *point, int luo_fd)
{
	struct swept_device *device = any_device;

	create_session(device, luo_fd, "sweep");
	point_arm(point);
	if (point_cut(point, preserve(device)) < 0) {
		device_look(point, device);
		point_step(point, "again", preserve(device));
	}
	point_step(point, "preserved", is_preserved(device));
	close(device->session);
	device_look(point, device);
}

static void close_preserved(struct point *point, int luo_fd)
{
	struct swept_device *device = any_device;

	create_session(device, luo_fd, "sweep");
	must(preserve(device));
	point_arm(point);
	point_cut_for_good(point, sys(close(device->session)));
	device_look(point, device);
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

static int make_preserve(void *device)
{
	return preserve(device);
}

static int make_bind(void *argument)
{
	struct swept_device *device = argument;
	const char *bdf = device->nic.bdf;

	return sys(pwrite(device->driver, bdf, strlen(bdf), 0));
}

static int make_retrieve(void *argument)
{
	struct swept_device *device = argument;

	device->nic.device = luo_retrieve_fd(device->session, TOKEN_DEVICE);
	return device->nic.device;
}

static int make_open(void *argument)
{
	struct nic *nic = &((struct swept_device *)argument)->nic;

	return vfio_bind(nic->device, nic->iommufd);
}

static int make_map(void *argument)
{
	struct nic *nic = &((struct swept_device *)argument)->nic;

	return iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, nic->size, NIC_IOVA);
}

static int make_attach(void *argument)
{
	const struct nic *nic = &((struct swept_device *)argument)->nic;

	return vfio_attach(nic->device, nic->ioas);
}

static int make_finish(void *argument)
{
	return luo_finish(((struct swept_device *)argument)->session);
}

static void look(struct point *point, void *device)
{
	device_look(point, device);
}

/* Whatever fails, nobody else gets at the device before FINISH. */
static void look_at_incoming(struct point *point, void *argument)
{
	const struct swept_device *device = argument;
	int ret = pci_attribute_write(device->nic.bdf, "reset", "1");

	device_look(point, device);
	point_step(point, "refuses_reset", ret == -EBUSY ? 0 : -EBADE);
}

static void look_at_unbound(struct point *point, void *argument)
{
	struct swept_device *device = argument;
	unsigned int groups = iommu_groups();

	look_at_incoming(point, device);
	point_step(point, "unbound", device_is_bound(device) ? -EBADE : 0);
	point_step(point, "no_group", groups == device->groups ? 0 : -EEXIST);
	device->groups = groups;
}

static struct last_call preserve_kept = {
	.name = "preserve_kept", .make = make_preserve, .look = look,
};
static struct last_call bind_device = {
	.name = "bind_device", .make = make_bind, .look = look_at_unbound,
};
static struct last_call retrieve_device = {
	.name = "retrieve_device", .make = make_retrieve, .look = look_at_incoming,
};
static struct last_call open_device = {
	.name = "open_device", .make = make_open, .look = look_at_incoming,
};
static struct last_call map_memory = {
	.name = "map_memory", .make = make_map, .look = look_at_incoming,
};
static struct last_call attach_device = {
	.name = "attach_device", .make = make_attach, .look = look_at_incoming,
};
static struct last_call finish = {
	.name = "finish", .make = make_finish, .look = look_at_incoming,
};

/* Their sessions have their addresses for names. */
static void for_each_device(void (*act)(struct swept_device *device, enum fail_kind kind,
					int luo_fd), int luo_fd)
{
	for (unsigned int i = 0; i < DEVICES; i++)
		act(&devices[i], kind_of(i), luo_fd);
}

/* Two functions behind each port of a switch, and two in every second slot of the root. */
static void name_devices(void)
{
	for (unsigned int i = 0; i < DEVICES; i++) {
		bool on_root = i >= BEHIND_SWITCH;
		unsigned int pair = (on_root ? i - BEHIND_SWITCH : i) / 2;

		device_name(&devices[i], on_root ? 0 : FIRST_BUS + pair,
			    on_root ? FIRST_ROOT_SLOT + 2 * pair : 0, i % 2);
	}
}

static void start(struct swept_device *device, enum fail_kind, int)
{
	device_start(device);
}

static void keep(struct swept_device *device, enum fail_kind kind, int luo_fd)
{
	create_session(device, luo_fd, device->nic.bdf);
	must(sweep_last_call(&preserve_kept, kind, device));
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
	return sweep_reboot(luo_fd, NULL);
}

/* -errno of the first call that cannot be made any more. */
static int take_over(struct swept_device *device, enum fail_kind kind)
{
	struct nic *nic = &device->nic;
	int ret;

	ret = sweep_last_call(&bind_device, kind, device);
	if (ret < 0)
		return ret;
	ret = sweep_last_call(&retrieve_device, kind, device);
	if (ret < 0)
		return ret;
	nic->iommufd = must(iommufd_open());
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	ret = sweep_last_call(&open_device, kind, device);
	if (ret < 0)
		return ret;
	device_map_registers(device);
	ret = sweep_last_call(&map_memory, kind, device);
	if (ret < 0)
		return ret;
	ret = sweep_last_call(&attach_device, kind, device);
	if (ret < 0)
		return ret;
	return sweep_last_call(&finish, kind, device);
}

/* What was taken over is an ordinary device by now, for whoever wants it. */
static void take(struct swept_device *device, enum fail_kind kind, int luo_fd)
{
	int ret;

	device_meet(device, must(luo_retrieve_session(luo_fd, device->nic.bdf)));
	ret = take_over(device, kind);
	fact("taken_over", "%s:%d", device->nic.bdf, ret);
	if (ret < 0)
		return;
	must(vfio_reset(device->nic.device));
	device_close(device);
	must(vfio_use(device->nic.bdf));
}

static int after_kexec(void)
{
	static const struct last_call *const calls[] = {
		&bind_device, &retrieve_device, &open_device, &map_memory, &attach_device, &finish,
	};

	sweep_begin();
	name_devices();
	for_each_device(take, luo_must_open());
	for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++)
		sweep_say_last_call(calls[i]);
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};
