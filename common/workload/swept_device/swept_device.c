// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "swept_device.h"
#include "vfio.h"

/* Most of what fails and is done without is an object of the slab. */
#define FOR_COPIES 2
#define FOR_PAGES 2

enum fail_kind swept_kind(unsigned int number)
{
	if (number < FOR_COPIES)
		return FAIL_COPY;
	return number < FOR_COPIES + FOR_PAGES ? FAIL_PAGE : FAIL_SLAB;
}

void swept_name(struct swept_device *device, unsigned int bus, unsigned int slot,
		unsigned int function)
{
	snprintf(device->bdf, sizeof(device->bdf), "0000:%02x:%02x.%u", bus, slot, function);
}

void swept_remember(struct swept_device *device)
{
	pci_config_read(device->bdf, 0, PCI_CONFIG_MAX, device->config);
	if (device->igb.bar0)
		igb_ring_state(&device->igb, &device->registers);
}

/* What became of it. */
void swept_say(const struct swept_device *device, const char *what, int ret)
{
	char key[64];

	snprintf(key, sizeof(key), "%s.%s", what, device->bdf);
	fact(key, "%d", ret);
}

/* vfio lets a device be opened whose registers it could not map, and says so here. */
void swept_map_registers(struct swept_device *device, int file)
{
	int ret = vfio_bar_map(file, 0, IGB_BAR0_SIZE, (void **)&device->igb.bar0);

	if (ret < 0) {
		swept_say(device, "registers", ret);
		device->igb.bar0 = NULL;
	}
	swept_remember(device);
}

void swept_unmap_registers(struct swept_device *device)
{
	if (device->igb.bar0)
		must(sys(munmap((void *)device->igb.bar0, IGB_BAR0_SIZE)));
	device->igb.bar0 = NULL;
}

/* Each bound device has one, in no-IOMMU mode too. */
static unsigned int iommu_groups(void)
{
	DIR *folder = opendir("/sys/kernel/iommu_groups");
	unsigned int count = 0;

	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return count;
}

void swept_meet(struct swept_device *device)
{
	must(pci_attribute_write(device->bdf, "driver_override", "vfio-pci"));
	device->driver = must(sys(open("/sys/bus/pci/drivers/vfio-pci/bind",
				       O_WRONLY | O_CLOEXEC)));
	device->groups = iommu_groups();
	swept_remember(device);
}

int swept_bind(const struct swept_device *device)
{
	return sys(pwrite(device->driver, device->bdf, strlen(device->bdf), 0));
}

void swept_look(struct point *point, const struct swept_device *device)
{
	struct igb_ring_state registers;
	u8 config[PCI_CONFIG_MAX];

	pci_config_read(device->bdf, 0, sizeof(config), config);
	point_step(point, "config", memcmp(config, device->config, sizeof(config)) ? -EBADE : 0);
	if (!device->igb.bar0)
		return;
	igb_ring_state(&device->igb, &registers);
	point_step(point, "registers",
		   memcmp(&registers, &device->registers, sizeof(registers)) ? -EBADE : 0);
}

/* Whatever fails, nobody else gets at the device before FINISH. */
void swept_look_incoming(struct point *point, const struct swept_device *device)
{
	int ret = pci_attribute_write(device->bdf, "reset", "1");

	swept_look(point, device);
	point_step(point, "refuses_reset", ret == -EBUSY ? 0 : -EBADE);
}

static bool is_bound(const struct swept_device *device)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", device->bdf);
	return !access(path, F_OK);
}

void swept_look_unbound(struct point *point, struct swept_device *device)
{
	unsigned int groups = iommu_groups();

	swept_look_incoming(point, device);
	point_step(point, "unbound", is_bound(device) ? -EBADE : 0);
	point_step(point, "no_group", groups == device->groups ? 0 : -EEXIST);
	device->groups = groups;
}

/* Where a bind went through although something failed in it, it may be its file that is missing. */
void swept_use(const struct swept_device *device)
{
	int ret = vfio_use(device->bdf);

	must_be(!ret || ret == -ENOENT, "%s: %s", device->bdf, errno_name(ret));
	swept_say(device, "used", ret);
}
