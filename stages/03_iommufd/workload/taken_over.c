// SPDX-License-Identifier: GPL-2.0-only
#include <unistd.h>

#include "hwpt.h"
#include "iommufd.h"
#include "nic.h"
#include "taken_over.h"
#include "taker.h"
#include "vfio.h"

#define AGAIN_FRAMES 50

struct taker {
	int luo;
	int session;
	struct nic nic;
};

static void retrieve_session(void *argument)
{
	struct taker *taker = argument;

	taker->session = must(luo_retrieve_session(taker->luo, SESSION));
}

static void retrieve_memory(void *argument)
{
	struct taker *taker = argument;

	taker->nic.memfd = must(luo_retrieve_fd(taker->session, TOKEN_RAM));
	taker->nic.canary = must(luo_retrieve_fd(taker->session, TOKEN_CANARY));
}

static void retrieve_iommufd(void *argument)
{
	struct taker *taker = argument;

	taker->nic.iommufd = must(luo_retrieve_fd(taker->session, TOKEN_IOMMUFD));
}

static void retrieve_device(void *argument)
{
	struct taker *taker = argument;

	taker->nic.device = must(luo_retrieve_fd(taker->session, TOKEN_DEVICE));
}

static void bind(void *argument)
{
	struct taker *taker = argument;
	struct nic *nic = &taker->nic;

	must(vfio_bind_id(nic->device, nic->iommufd, &nic->dev_id));
}

static void restore(void *argument)
{
	struct taker *taker = argument;
	struct nic *nic = &taker->nic;

	nic_map_memory(nic);
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	nic_map_all_again(nic, nic->ioas);
	nic->hwpt = must(iommufd_hwpt_restore(nic->iommufd, nic->dev_id, nic->ioas, TOKEN_HWPT));
}

static void attach(void *argument)
{
	struct taker *taker = argument;

	must(vfio_attach(taker->nic.device, taker->nic.hwpt));
}

static const struct taker_step steps[] = {
	{ "session", retrieve_session },
	{ "memory", retrieve_memory },
	{ "iommufd", retrieve_iommufd },
	{ "device", retrieve_device },
	{ "bind", bind },
	{ "restore", restore },
	{ "attach", attach },
};

/* It is a device that nobody has: it is opened, reset, and receives. */
static void use_again(const char *bdf)
{
	static struct nic nic;
	int device = vfio_cdev_open(bdf);

	fact("taker.open", "%d", device < 0 ? device : 0);
	if (device < 0)
		return;
	close(device);
	nic.bdf = bdf;
	nic.canary = -1;
	nic_new_memory(&nic);
	nic_open(&nic);
	fact("taker.reset", "%d", vfio_reset(nic.device));
	nic_start(&nic, COUNT - 1);
	fact("taker.frames", "%s", frames_come(&nic, AGAIN_FRAMES) ? "yes" : "no");
}

void kill_device_taker(const char *bdf, int luo)
{
	struct taker taker = { .luo = luo, .nic.bdf = bdf };

	kill_taker(bdf, steps, sizeof(steps) / sizeof(steps[0]), &taker);
	fact("taker.session", "%d", luo_retrieve_session(luo, SESSION));
	await("snapshot-discarded");
	use_again(bdf);
}
