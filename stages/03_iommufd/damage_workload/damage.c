// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device that goes on writing into a memfd through an IOMMU, for a sweep of
 * damaged records. The host sends it frames at each rendezvous, and looks
 * whether they land in the machine's RAM (common/suites/damage).
 */
#include <fcntl.h>
#include <unistd.h>

#include "handed_files.h"
#include "hwpt.h"
#include "iommufd.h"
#include "nic.h"
#include "vfio.h"

#define DEVICE "0000:01:00.0"

/* The memory's first page is what a reader would know; the device has the others. */
static struct handed_file files[] = {
	{ .session = SESSION, .token = TOKEN_CANARY, .pages = 8, .position = 0x1234,
	  .seals = F_SEAL_GROW },
	{ .session = SESSION, .token = TOKEN_RAM, .device_from = 1, .position = 4096 },
	{},
};
static struct handed_file *const memory = &files[1];

static struct nic nic = { .bdf = DEVICE, .iommufd = -ENOENT, .device = -ENOENT };

static void use_memory(void)
{
	nic.memfd = memory->fd;
	nic_map_memory(&nic);
}

static void start_device(void)
{
	use_memory();
	*nic.reader = (struct reader) { .nonce = param_nonce(), .iova = IOVA, .count = COUNT };
	nic_open(&nic);
	nic_start(&nic, COUNT - 1);
	must(iommufd_hwpt_mark(nic.iommufd, nic.hwpt, TOKEN_HWPT));
}

static int before_kexec(void)
{
	iommufd_allow_no_remapping();
	memory->pages = MEMORY_SIZE / RING_PAGE_SIZE;
	make_files(files);
	start_device();
	hand_over(files, luo_must_open());
	must(luo_preserve_fd(memory->session_fd, nic.iommufd, TOKEN_IOMMUFD));
	must(luo_preserve_fd(memory->session_fd, nic.device, TOKEN_DEVICE));
	must(kexec_load_incoming());
	await("reboot");
	return kexec_reboot();
}

static int said(const char *key, int ret)
{
	fact(key, "%d", ret < 0 ? ret : 0);
	return ret;
}

static int map_all(void)
{
	int ret = iommufd_map_file(nic.iommufd, nic.ioas, nic.memfd, 0, BUFFERS, IOVA);

	for (u32 i = 0; i < CHUNKS && !ret; i++)
		ret = nic_map_chunk(&nic, nic.ioas, i, i);
	if (!ret)
		nic_map_apart(&nic, nic.ioas);
	return ret;
}

/* Each step is said; the first that is refused is the last. */
static void take_device_over(void)
{
	if (memory->session_fd < 0 || memory->fd < 0)
		return;
	use_memory();
	nic.iommufd = said("device.iommufd", luo_retrieve_fd(memory->session_fd, TOKEN_IOMMUFD));
	said("device.bind", pci_driver_bind(nic.bdf, "vfio-pci"));
	nic.device = said("device.retrieve", luo_retrieve_fd(memory->session_fd, TOKEN_DEVICE));
	if (nic.iommufd < 0 || nic.device < 0 ||
	    said("device.open", vfio_bind_id(nic.device, nic.iommufd, &nic.dev_id)) < 0)
		return;
	nic.ioas = must(iommufd_ioas_alloc(nic.iommufd));
	if (said("device.map", map_all()) < 0)
		return;
	nic.hwpt = said("device.restore", iommufd_hwpt_restore(nic.iommufd, nic.dev_id, nic.ioas,
							       TOKEN_HWPT));
	if ((int)nic.hwpt >= 0)
		said("device.attach", vfio_attach(nic.device, nic.hwpt));
}

static int after_kexec(void)
{
	int luo_fd = luo_open();

	iommufd_allow_no_remapping();
	memory->pages = MEMORY_SIZE / RING_PAGE_SIZE;
	fact("luo", "%d", luo_fd < 0 ? luo_fd : 0);
	take_over(files, luo_fd);
	say_contents(files, "retrieved");
	take_device_over();
	finish_sessions(files);
	say_contents(files, "finished");
	if (nic.device >= 0)
		close(nic.device);
	if (nic.iommufd >= 0)
		close(nic.iommufd);
	let_go_and_use_memory(files);
	await("closed");
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};
