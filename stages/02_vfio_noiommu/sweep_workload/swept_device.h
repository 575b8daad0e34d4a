/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that writes to a memfd, and what of it must be as it was when a call has failed. */
#ifndef SWEPT_DEVICE_H
#define SWEPT_DEVICE_H

#include "nic.h"
#include "pci_config.h"
#include "sweep.h"

#define COUNT 256
#define TOKEN_MEMORY 1
#define TOKEN_DEVICE 2

/**
 * struct swept_device - a device, its session, and how it was before a call
 * @driver: vfio-pci's file to bind devices by
 * @groups: IOMMU groups that there are while it is unbound
 * @description: of the ring, which nobody reads
 */
struct swept_device {
	struct nic nic;
	char bdf[32];
	int session, driver;
	unsigned int groups;
	u8 config[PCI_CONFIG_MAX];
	struct igb_ring_state registers;
	union {
		struct ring ring;
		u8 room[sizeof(struct ring) + RING_MAX / RING_PAGE_BUFFERS *
			sizeof(struct ring_page)];
	} description;
};

void device_name(struct swept_device *device, unsigned int bus, unsigned int slot,
		 unsigned int function);
void device_start(struct swept_device *device);
/* In the incoming kernel, which finds it as it runs. */
void device_meet(struct swept_device *device, int session);
void device_map_registers(struct swept_device *device);
void device_close(struct swept_device *device);
void device_look(struct point *point, const struct swept_device *device);
unsigned int iommu_groups(void);
bool device_is_bound(const struct swept_device *device);

#endif
