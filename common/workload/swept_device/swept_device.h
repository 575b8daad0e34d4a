/* SPDX-License-Identifier: GPL-2.0-only */
/* What of a device must be as it was when a call has failed. */
#ifndef SWEPT_DEVICE_H
#define SWEPT_DEVICE_H

#include "igb.h"
#include "pci_config.h"
#include "point.h"

/**
 * struct swept_device - a device, and how it was before a call
 * @driver: vfio-pci's file to bind devices by
 * @groups: IOMMU groups that there are while it is unbound
 * @igb: its registers, as long as they are mapped
 */
struct swept_device {
	char bdf[32];
	int driver;
	unsigned int groups;
	struct igb igb;
	u8 config[PCI_CONFIG_MAX];
	struct igb_ring_state registers;
};

/* What is made to fail with the device of that number, of many. */
enum fail_kind swept_kind(unsigned int number);

void swept_name(struct swept_device *device, unsigned int bus, unsigned int slot,
		unsigned int function);
void swept_say(const struct swept_device *device, const char *what, int ret);
void swept_remember(struct swept_device *device);
void swept_map_registers(struct swept_device *device, int file);
void swept_unmap_registers(struct swept_device *device);

/* In the incoming kernel, which finds it as it runs. */
void swept_meet(struct swept_device *device);
int swept_bind(const struct swept_device *device);

void swept_look(struct point *point, const struct swept_device *device);
void swept_look_incoming(struct point *point, const struct swept_device *device);
void swept_look_unbound(struct point *point, struct swept_device *device);

/* By somebody who has not had it before. */
void swept_use(const struct swept_device *device);

#endif
