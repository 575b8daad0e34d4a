// SPDX-License-Identifier: GPL-2.0-only
#include "guest_ram.h"
#include "iommufd.h"
#include "nic.h"
#include "rules.h"
#include "taken_over.h"
#include "taker.h"
#include "vfio.h"

/* The host sends to the device all the while. */
#define AGAIN_MS 5000

struct taker {
	int luo_fd;
	int session_fd;
	struct nic nic;
};

static void retrieve_session(void *argument)
{
	struct taker *taker = argument;

	taker->session_fd = must(luo_retrieve_session(taker->luo_fd, OTHER_SESSION));
}

static void retrieve_memory(void *argument)
{
	struct taker *taker = argument;

	taker->nic.memfd = must(luo_retrieve_fd(taker->session_fd, TOKEN_OTHER_MEMORY));
	taker->nic.size = OTHER_AREA + ring_area_size(OTHER_COUNT);
}

static void retrieve_device(void *argument)
{
	struct taker *taker = argument;

	taker->nic.device = must(luo_retrieve_fd(taker->session_fd, TOKEN_OTHER_DEVICE));
}

static void bind(void *argument)
{
	struct taker *taker = argument;

	must(nic_bind(&taker->nic, taker->nic.device));
}

static void map(void *argument)
{
	struct taker *taker = argument;
	struct nic *nic = &taker->nic;

	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, nic->size, NIC_IOVA));
}

static void attach(void *argument)
{
	struct taker *taker = argument;

	must(vfio_attach(taker->nic.device, taker->nic.ioas));
}

static const struct taker_step steps[] = {
	{ "session", retrieve_session },
	{ "memory", retrieve_memory },
	{ "device", retrieve_device },
	{ "bind", bind },
	{ "map", map },
	{ "attach", attach },
};

void kill_other_taker(int luo_fd)
{
	struct taker taker = { .luo_fd = luo_fd, .nic.bdf = places()->other };

	kill_taker(taker.nic.bdf, steps, sizeof(steps) / sizeof(steps[0]), &taker);
}

static bool gets_a_frame(const struct nic *nic)
{
	const volatile union igb_rx_desc *first =
		(void *)(nic->memory + ring_descriptor(nic->ring, 0));
	struct deadline deadline = deadline_in_ms(AGAIN_MS);

	while (!(first->wb.status & IGB_RX_DONE)) {
		if (deadline_passed(deadline))
			return false;
		poll_pause();
	}
	return true;
}

/* It is a device that nobody has: it is opened, reset, and receives. */
void use_killed_takers_device(u64 nonce)
{
	struct nic nic = { .bdf = places()->other, .size = OTHER_AREA + ring_area_size(OTHER_COUNT) };
	int device = vfio_cdev_open(nic.bdf), ret;

	fact("taker.open", "%d", device < 0 ? device : 0);
	if (device < 0)
		return;
	ret = nic_bind(&nic, device);
	fact("taker.bind", "%d", ret);
	if (ret < 0)
		return;
	fact("taker.reset", "%d", vfio_reset(nic.device));
	nic.memfd = memfd_new("again", nic.size);
	nic.memory = ram_map(nic.memfd, nic.size);
	nic.ring = (void *)nic.memory;
	ram_populate(nic.memory, nic.size);
	nic_map(&nic);
	nic_place_ring(&nic, OTHER_AREA, OTHER_COUNT, nonce);
	/* From here on what lands may land where the first one's frames did. */
	fact_counter("taken_again", read_counter());
	nic_start(&nic);
	fact("taker.frames", "%s", gets_a_frame(&nic) ? "yes" : "no");
}
