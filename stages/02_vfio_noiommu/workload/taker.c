// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest_ram.h"
#include "iommufd.h"
#include "nic.h"
#include "rules.h"
#include "taker.h"
#include "vfio.h"

/* The control's name ends with the last thing that the process gets done. */
#define CONTROL "taker-killed-"

/* The host sends to the device all the while. */
#define AGAIN_MS 5000

struct taker {
	int luo_fd;
	int session_fd;
	struct nic nic;
};

static void retrieve_session(struct taker *taker)
{
	taker->session_fd = must(luo_retrieve_session(taker->luo_fd, OTHER_SESSION));
}

static void retrieve_memory(struct taker *taker)
{
	taker->nic.memfd = must(luo_retrieve_fd(taker->session_fd, TOKEN_OTHER_MEMORY));
	taker->nic.size = OTHER_AREA + ring_area_size(OTHER_COUNT);
}

static void retrieve_device(struct taker *taker)
{
	taker->nic.device = must(luo_retrieve_fd(taker->session_fd, TOKEN_OTHER_DEVICE));
}

static void bind(struct taker *taker)
{
	must(nic_bind(&taker->nic, taker->nic.device));
}

static void map(struct taker *taker)
{
	struct nic *nic = &taker->nic;

	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	must(iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, nic->size, NIC_IOVA));
}

static void attach(struct taker *taker)
{
	must(vfio_attach(taker->nic.device, taker->nic.ioas));
}

static const struct {
	const char *name;
	void (*take)(struct taker *taker);
} steps[] = {
	{ "session", retrieve_session },
	{ "memory", retrieve_memory },
	{ "device", retrieve_device },
	{ "bind", bind },
	{ "map", map },
	{ "attach", attach },
};

bool taker_is_killed(void)
{
	return param_control_kind(CONTROL);
}

static void take_over(struct taker *taker)
{
	char last[64];

	param_get("control", last, sizeof(last));
	for (unsigned int i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		steps[i].take(taker);
		if (!strcmp(last + strlen(CONTROL), steps[i].name))
			raise(SIGKILL);
	}
	bail("stage.control=%s", last);
}

void kill_taker(int luo_fd)
{
	struct taker taker = { .luo_fd = luo_fd, .nic.bdf = places()->other };
	pid_t pid;
	int status;

	must(pci_driver_bind(taker.nic.bdf, "vfio-pci"));
	pid = must(sys(fork()));
	if (!pid)
		take_over(&taker);
	must(sys(waitpid(pid, &status, 0)));
	fact("taker.signal", "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	fact_counter("taker_died", read_counter());
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
