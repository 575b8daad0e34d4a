// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device that goes on writing into a memfd, for a sweep of damaged records.
 * The host sends it frames at each rendezvous, and looks whether they land in
 * the machine's RAM (common/suites/damage).
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "handed_files.h"
#include "iommufd.h"
#include "nic.h"
#include "vfio.h"

#define PAGE_SIZE 4096ull
#define COUNT 1024
#define TOKEN_DEVICE 3
#define OWN_PAGES 60

static struct handed_file files[] = {
	{ .session = "stage", .token = 1, .pages = 8, .position = 0x1234, .seals = F_SEAL_GROW },
	{ .session = "stage", .token = 2, .pages = OWN_PAGES + 4 + COUNT / 2,
	  .device_from = OWN_PAGES, .position = 4096 },
	{},
};
static struct handed_file *const memory = &files[1];

static struct nic nic;
/* The ring's description stays in this process: nobody reads the ring. */
static union {
	struct ring ring;
	u8 room[sizeof(struct ring) + RING_MAX / RING_PAGE_BUFFERS * sizeof(struct ring_page)];
} description;

static void map_memory(void)
{
	nic.bdf = places()->device;
	nic.size = memory->pages * PAGE_SIZE;
	nic.memfd = memory->fd;
	nic.memory = mmap(NULL, nic.size, PROT_READ | PROT_WRITE, MAP_SHARED, nic.memfd, 0);
	must_be(nic.memory != MAP_FAILED, "%s", errno_name(-errno));
	nic.ring = &description.ring;
}

static void start_device(void)
{
	map_memory();
	nic_open(&nic);
	nic_place_ring(&nic, OWN_PAGES * PAGE_SIZE, COUNT, param_nonce());
	nic_start(&nic);
	fact("ring.pa", "0x%llx", ring_descriptors_pa(nic.ring));
	fact("ring.count", "%u", COUNT);
}

static int before_kexec(void)
{
	make_files(files);
	start_device();
	hand_over(files, luo_must_open());
	must(luo_preserve_fd(memory->session_fd, nic.device, TOKEN_DEVICE));
	must(kexec_load_incoming());
	await("reboot");
	return kexec_reboot();
}

/* 0, or the step that was refused; each is said. */
static int retrieve_device(void)
{
	int ret = pci_driver_bind(nic.bdf, "vfio-pci");

	fact("device.bind", "%d", ret);
	nic.device = luo_retrieve_fd(memory->session_fd, TOKEN_DEVICE);
	fact("device.retrieve", "%d", nic.device < 0 ? nic.device : 0);
	if (nic.device < 0)
		return nic.device;
	ret = nic_bind(&nic, nic.device);
	fact("device.open", "%d", ret);
	return ret;
}

static void attach_device(void)
{
	int ret;

	nic.ioas = must(iommufd_ioas_alloc(nic.iommufd));
	ret = iommufd_map_file(nic.iommufd, nic.ioas, nic.memfd, 0, nic.size, NIC_IOVA);
	fact("device.map", "%d", ret);
	if (ret < 0)
		return;
	ret = vfio_attach(nic.device, nic.ioas);
	fact("device.attach", "%d", ret);
}

static void take_device_over(void)
{
	nic.device = -ENOENT;
	if (memory->session_fd < 0 || memory->fd < 0)
		return;
	map_memory();
	if (!retrieve_device())
		attach_device();
}

/* Its registers are mapped, which keeps its file open. */
static void let_device_go(void)
{
	if (nic.igb.bar0)
		must(sys(munmap((void *)nic.igb.bar0, IGB_BAR0_SIZE)));
	if (nic.device >= 0)
		close(nic.device);
	if (nic.iommufd > 0)
		close(nic.iommufd);
}

static int after_kexec(void)
{
	int luo_fd = luo_open();

	fact("luo", "%d", luo_fd < 0 ? luo_fd : 0);
	take_over(files, luo_fd);
	say_contents(files, "retrieved");
	take_device_over();
	finish_sessions(files);
	say_contents(files, "finished");
	let_device_go();
	let_go_and_use_memory(files);
	await("closed");
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = before_kexec,
	.after_kexec = after_kexec,
};
