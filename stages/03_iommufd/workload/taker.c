// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hwpt.h"
#include "iommufd.h"
#include "nic.h"
#include "taker.h"
#include "vfio.h"

/* The control's name ends with the last thing that the process gets done. */
#define CONTROL "taker-killed-"

#define AGAIN_FRAMES 50

struct taker {
	int luo;
	int session;
	struct nic nic;
};

static void retrieve_session(struct taker *taker)
{
	taker->session = must(luo_retrieve_session(taker->luo, SESSION));
}

static void retrieve_memory(struct taker *taker)
{
	taker->nic.memfd = must(luo_retrieve_fd(taker->session, TOKEN_RAM));
	taker->nic.canary = must(luo_retrieve_fd(taker->session, TOKEN_CANARY));
}

static void retrieve_iommufd(struct taker *taker)
{
	taker->nic.iommufd = must(luo_retrieve_fd(taker->session, TOKEN_IOMMUFD));
}

static void retrieve_device(struct taker *taker)
{
	taker->nic.device = must(luo_retrieve_fd(taker->session, TOKEN_DEVICE));
}

static void bind(struct taker *taker)
{
	struct nic *nic = &taker->nic;

	must(vfio_bind_id(nic->device, nic->iommufd, &nic->dev_id));
}

static void restore(struct taker *taker)
{
	struct nic *nic = &taker->nic;

	nic_map_memory(nic);
	nic->ioas = must(iommufd_ioas_alloc(nic->iommufd));
	nic_map_in_halves(nic, nic->ioas);
	nic->hwpt = must(iommufd_hwpt_restore(nic->iommufd, nic->dev_id, nic->ioas, TOKEN_HWPT));
}

static void attach(struct taker *taker)
{
	must(vfio_attach(taker->nic.device, taker->nic.hwpt));
}

static const struct {
	const char *name;
	void (*take)(struct taker *taker);
} steps[] = {
	{ "session", retrieve_session },
	{ "memory", retrieve_memory },
	{ "iommufd", retrieve_iommufd },
	{ "device", retrieve_device },
	{ "bind", bind },
	{ "restore", restore },
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

void kill_taker(const char *bdf, int luo)
{
	struct taker taker = { .luo = luo, .nic.bdf = bdf };
	pid_t pid;
	int status;

	must(pci_driver_bind(bdf, "vfio-pci"));
	pid = must(sys(fork()));
	if (!pid)
		take_over(&taker);
	must(sys(waitpid(pid, &status, 0)));
	fact("taker.signal", "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	fact_counter("taker_died", read_counter());
	fact("taker.session", "%d", luo_retrieve_session(luo, SESSION));
	await("snapshot-discarded");
	use_again(bdf);
}
