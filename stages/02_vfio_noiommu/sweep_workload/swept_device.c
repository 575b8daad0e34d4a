// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "swept_device.h"
#include "vfio.h"

static void map_memory(struct swept_device *device, int memfd)
{
	struct nic *nic = &device->nic;

	nic->ring = &device->description.ring;
	nic->size = ring_area_size(COUNT);
	nic->memfd = memfd;
	nic->memory = mmap(NULL, nic->size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	must_be(nic->memory != MAP_FAILED, "%s", errno_name(-errno));
}

void device_name(struct swept_device *device, unsigned int bus, unsigned int slot,
		 unsigned int function)
{
	snprintf(device->bdf, sizeof(device->bdf), "0000:%02x:%02x.%u", bus, slot, function);
	device->nic.bdf = device->bdf;
}

/* Each bound device has one, in no-IOMMU mode too. */
unsigned int iommu_groups(void)
{
	DIR *folder = opendir("/sys/kernel/iommu_groups");
	unsigned int count = 0;

	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return count;
}

/* Registers are seen as long as they are mapped. */
static void device_remember(struct swept_device *device)
{
	pci_config_read(device->nic.bdf, 0, PCI_CONFIG_MAX, device->config);
	if (device->nic.igb.bar0)
		igb_ring_state(&device->nic.igb, &device->registers);
}

void device_start(struct swept_device *device)
{
	int memfd = must(sys(memfd_create("swept", MFD_CLOEXEC)));

	must(sys(ftruncate(memfd, ring_area_size(COUNT))));
	map_memory(device, memfd);
	memset(device->nic.memory, 0, device->nic.size);
	nic_open(&device->nic);
	nic_place_ring(&device->nic, 0, COUNT, param_nonce());
	nic_start(&device->nic);
	device_remember(device);
}

void device_meet(struct swept_device *device, int session)
{
	device->session = session;
	map_memory(device, must(luo_retrieve_fd(session, TOKEN_MEMORY)));
	must(pci_attribute_write(device->nic.bdf, "driver_override", "vfio-pci"));
	device->driver = must(sys(open("/sys/bus/pci/drivers/vfio-pci/bind",
				       O_WRONLY | O_CLOEXEC)));
	device->groups = iommu_groups();
	device_remember(device);
}

/* vfio lets a device be opened whose registers it could not map, and says so here. */
void device_map_registers(struct swept_device *device)
{
	struct nic *nic = &device->nic;
	int ret = vfio_bar_map(nic->device, 0, IGB_BAR0_SIZE, (void **)&nic->igb.bar0);

	if (ret < 0) {
		fact("registers", "%s:%d", nic->bdf, ret);
		nic->igb.bar0 = NULL;
	}
	device_remember(device);
}

void device_close(struct swept_device *device)
{
	struct nic *nic = &device->nic;

	if (nic->igb.bar0)
		must(sys(munmap((void *)nic->igb.bar0, IGB_BAR0_SIZE)));
	nic->igb.bar0 = NULL;
	close(nic->device);
	close(nic->iommufd);
	close(device->session);
	close(device->driver);
}

void device_look(struct point *point, const struct swept_device *device)
{
	struct igb_ring_state registers;
	u8 config[PCI_CONFIG_MAX];

	pci_config_read(device->nic.bdf, 0, sizeof(config), config);
	point_step(point, "config", memcmp(config, device->config, sizeof(config)) ? -EBADE : 0);
	if (!device->nic.igb.bar0)
		return;
	igb_ring_state(&device->nic.igb, &registers);
	point_step(point, "registers",
		   memcmp(&registers, &device->registers, sizeof(registers)) ? -EBADE : 0);
}

bool device_is_bound(const struct swept_device *device)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", device->nic.bdf);
	return !access(path, F_OK);
}
