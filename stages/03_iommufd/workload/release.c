// SPDX-License-Identifier: GPL-2.0-only
/*
 * What was taken over is given back as if it had been made here: page tables,
 * pins, the device. Nothing of it may outlive its owner, DMA least of all.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "evidence.h"
#include "hwpt.h"
#include "iommufd.h"
#include "release.h"
#include "vfio.h"

#define SENT_MS 50
/* A guest reads what is there in its own time. */
#define GUEST_READS_MS 2000
/*
 * Where the ring cannot be read QEMU goes on to the next descriptor, nine faults
 * for each, until none is left: half a second of frames.
 */
#define DESCRIPTORS_LEFT (RATE / 2)

/* Frames that are there, or come within the time; nobody gives their buffers back. */
static u64 frames_within(struct nic *nic, u64 ms)
{
	struct deadline deadline = deadline_in_ms(ms);
	u64 before = descriptors_read(nic);

	do {
		while (!nic->guest && reader_take(nic->memory) >= 0)
			;
		poll_pause();
	} while (!deadline_passed(deadline));
	return descriptors_read(nic) - before;
}

/* What was written until now is read when this returns. */
static void read_what_is_there(struct nic *nic)
{
	struct deadline deadline = deadline_in_ms(GUEST_READS_MS);

	frames_within(nic, 0);
	while (nic->guest && frames_within(nic, SENT_MS) && !deadline_passed(deadline))
		;
}

/* While frames are sent: detached, the device is led nowhere. */
void release_translation(struct nic *nic)
{
	/* Faults are told apart by when the host has heard of this. */
	report_fault_interrupts("faults.before");
	await("detaching");
	igb_rx_set_tail(&nic->igb, (igb_rx_head(&nic->igb) + DESCRIPTORS_LEFT) % COUNT);
	if (!param_control("kept"))
		fact("release.detach", "%d", vfio_detach(nic->device));
	read_what_is_there(nic);
	fact("release.frames", "%llu", frames_within(nic, SENT_MS));
	report_fault_interrupts("faults.after");
	await("snapshot-detached");
}

/* Nobody but this program may use any of it now. */
void release_device(struct nic *nic)
{
	int ret;

	igb_report_interrupts(&nic->igb, nic->device);
	if (!param_control("kept")) {
		fact("release.hwpt", "%d", iommufd_destroy(nic->iommufd, nic->hwpt));
		fact("release.unmap", "%d", iommufd_unmap(nic->iommufd, nic->ioas, 0, ~0ull));
		fact("release.ioas", "%d", iommufd_destroy(nic->iommufd, nic->ioas));
	}
	report_pins("pins.released");
	if (!param_control("kept")) {
		must(sys(munmap((void *)nic->igb.bar0, IGB_BAR0_SIZE)));
		close(nic->device);
		close(nic->iommufd);
		fact("release.open", "%d", vfio_use(nic->bdf));
		report_let_go(nic->bdf);
	}
	report_iommu_pages("iommu_pages.released");
	report_secondary_pages("secondary_pages.released");
	await("snapshot-released");
	if (!param_control("kept")) {
		ret = pci_driver_unbind(nic->bdf, "vfio-pci");
		fact("release.unbind", "%d", ret);
		must_be(ret != -ETIMEDOUT, "vfio-pci waits for the device, which nobody has open");
	}
}
