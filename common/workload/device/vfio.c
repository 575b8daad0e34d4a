// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "iommufd.h"
#include "vfio.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define VFIO_MAX_IRQS 64
/* An unbind that is not refused is over at once, or never; the bound is for a host that is busy. */
#define UNBIND_MS 3000
/* Of BAR 0, what is mapped to see whether it can be. */
#define REGISTERS 4096

static int write_file(const char *path, const char *value)
{
	int fd, ret;

	fd = sys(open(path, O_WRONLY | O_CLOEXEC));
	if (fd < 0)
		return fd;
	ret = sys(write(fd, value, strlen(value)));
	close(fd);
	return ret < 0 ? ret : 0;
}

int pci_attribute_write(const char *bdf, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, name);
	return write_file(path, value);
}

int pci_rescan(void)
{
	return write_file("/sys/bus/pci/rescan", "1");
}

int pci_driver_bind(const char *bdf, const char *driver)
{
	int ret;

	ret = pci_attribute_write(bdf, "driver_override", driver);
	if (ret < 0)
		return ret;
	return write_file("/sys/bus/pci/drivers_probe", bdf);
}

/* As long as somebody has the device's file open, if need be. */
int pci_driver_unbind_and_wait(const char *bdf, const char *driver)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/unbind", driver);
	return write_file(path, bdf);
}

/**
 * struct unbinding - a write to a driver's unbind attribute, by a thread of its own
 * @result: of the write, -ETIMEDOUT until then
 *
 * Where the device's file is waited for, it never ends: nobody frees it then.
 */
struct unbinding {
	char bdf[32];
	char driver[32];
	int result;
};

static void *unbind(void *argument)
{
	struct unbinding *unbinding = argument;
	int ret = pci_driver_unbind_and_wait(unbinding->bdf, unbinding->driver);

	__atomic_store_n(&unbinding->result, ret, __ATOMIC_RELEASE);
	return NULL;
}

/* What the write returns, or -ETIMEDOUT when it is still waiting for something. */
int pci_driver_unbind(const char *bdf, const char *driver)
{
	struct deadline deadline = deadline_in_ms(UNBIND_MS);
	struct unbinding *unbinding = must_be_memory(calloc(1, sizeof(*unbinding)));
	pthread_t thread;
	int ret;

	snprintf(unbinding->bdf, sizeof(unbinding->bdf), "%s", bdf);
	snprintf(unbinding->driver, sizeof(unbinding->driver), "%s", driver);
	unbinding->result = -ETIMEDOUT;
	must_be(!pthread_create(&thread, NULL, unbind, unbinding), "no thread");
	do {
		poll_pause();
		ret = __atomic_load_n(&unbinding->result, __ATOMIC_ACQUIRE);
	} while (ret == -ETIMEDOUT && !deadline_passed(deadline));
	pthread_detach(thread);
	if (ret != -ETIMEDOUT)
		free(unbinding);
	return ret;
}

/* Past the device's driver, whichever it is. */
int pci_config_write(const char *bdf, u32 offset, const void *value, size_t size)
{
	char path[128];
	int fd, ret;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/config", bdf);
	fd = sys(open(path, O_WRONLY | O_CLOEXEC));
	if (fd < 0)
		return fd;
	ret = sys(pwrite(fd, value, size, offset));
	close(fd);
	return ret < 0 ? ret : 0;
}

int vfio_cdev_open(const char *bdf)
{
	struct dirent *entry;
	char path[320];
	int fd = -ENODEV;
	DIR *dir;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/vfio-dev", bdf);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry->d_name);
		fd = sys(open(path, O_RDWR | O_CLOEXEC));
		break;
	}
	closedir(dir);
	return fd;
}

int vfio_bind(int device, int iommufd)
{
	return vfio_bind_with_token(device, iommufd, NULL);
}

/* @token: of a VF, what vfio_set_vf_token() gave its PF; NULL for any other device. */
int vfio_bind_with_token(int device, int iommufd, const u8 *token)
{
	struct vfio_device_bind_iommufd arg = {
		.argsz = sizeof(arg),
		.flags = token ? VFIO_DEVICE_BIND_FLAG_TOKEN : 0,
		.iommufd = iommufd,
		.token_uuid_ptr = (unsigned long)token,
	};

	return sys(ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &arg));
}

int vfio_set_vf_token(int device, const u8 *token)
{
	struct {
		struct vfio_device_feature feature;
		u8 uuid[VFIO_TOKEN_SIZE];
	} arg = {
		.feature = {
			.argsz = sizeof(arg),
			.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
		},
	};

	memcpy(arg.uuid, token, sizeof(arg.uuid));
	return sys(ioctl(device, VFIO_DEVICE_FEATURE, &arg));
}

int vfio_attach(int device, u32 pt_id)
{
	struct vfio_device_attach_iommufd_pt arg = { .argsz = sizeof(arg), .pt_id = pt_id };

	return sys(ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &arg));
}

int vfio_detach(int device)
{
	struct vfio_device_detach_iommufd_pt arg = { .argsz = sizeof(arg) };

	return sys(ioctl(device, VFIO_DEVICE_DETACH_IOMMUFD_PT, &arg));
}

int vfio_reset(int device)
{
	return sys(ioctl(device, VFIO_DEVICE_RESET));
}

int vfio_hot_reset(int device)
{
	struct vfio_pci_hot_reset arg = { .argsz = sizeof(arg) };

	return sys(ioctl(device, VFIO_DEVICE_PCI_HOT_RESET, &arg));
}

int vfio_set_irq_eventfd(int device, u32 index, int eventfd)
{
	return vfio_set_irq_eventfds(device, index, &eventfd, 1);
}

/* All interrupts of that index, from the first on. */
int vfio_set_irq_eventfds(int device, u32 index, const int *eventfds, u32 count)
{
	struct {
		struct vfio_irq_set set;
		int fds[VFIO_MAX_IRQS];
	} arg = {
		.set = {
			.argsz = sizeof(arg.set) + count * sizeof(int),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = index,
			.count = count,
		},
	};

	if (count > VFIO_MAX_IRQS)
		return -EINVAL;
	memcpy(arg.fds, eventfds, count * sizeof(int));
	return sys(ioctl(device, VFIO_DEVICE_SET_IRQS, &arg));
}

int vfio_clear_irqs(int device, u32 index)
{
	struct vfio_irq_set arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
	};

	return sys(ioctl(device, VFIO_DEVICE_SET_IRQS, &arg));
}

int vfio_low_power_enter(int device)
{
	struct vfio_device_feature arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
	};

	return sys(ioctl(device, VFIO_DEVICE_FEATURE, &arg));
}

/* Of one interrupt, or 0: what can be done with it << 16 | how many there are. */
u32 vfio_irq_info(int device, u32 index)
{
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = index };

	if (sys(ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info)))
		return 0;
	return info.flags << 16 | info.count;
}

static int region_info(int device, u32 index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	return sys(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, info));
}

/* Of one region, or 0: its size << 8 | what can be done with it. */
u64 vfio_region_info(int device, u32 index)
{
	struct vfio_region_info info;

	return region_info(device, index, &info) ? 0 : info.size << 8 | info.flags;
}

static int region_offset(int device, u32 index, u64 *offset)
{
	struct vfio_region_info info;
	int ret = region_info(device, index, &info);

	*offset = info.offset;
	return ret;
}

/* A write of 0 to 32 bits of BAR 0 on a signal of @eventfd; -1 takes that back. */
int vfio_set_ioeventfd(int device, u64 offset, int eventfd)
{
	struct vfio_device_ioeventfd arg = {
		.argsz = sizeof(arg),
		.flags = VFIO_DEVICE_IOEVENTFD_32,
		.fd = eventfd,
	};
	u64 base;
	int ret = region_offset(device, VFIO_PCI_BAR0_REGION_INDEX, &base);

	arg.offset = base + offset;
	return ret ?: sys(ioctl(device, VFIO_DEVICE_IOEVENTFD, &arg));
}

int vfio_bar_map(int device, u32 index, size_t size, void **mapping)
{
	u64 offset;
	int ret;

	ret = region_offset(device, index, &offset);
	if (ret < 0)
		return ret;
	*mapping = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, device, offset);
	return *mapping == MAP_FAILED ? -errno : 0;
}

static int region_read(int device, u32 index, u32 offset, void *value, size_t size)
{
	u64 base;
	int ret;

	ret = region_offset(device, index, &base);
	if (ret < 0)
		return ret;
	ret = sys(pread(device, value, size, base + offset));
	return ret < 0 ? ret : 0;
}

/* Of BAR 0, as whoever has not mapped it has to. */
int vfio_register_read(int device, u32 offset, u32 *value)
{
	return region_read(device, VFIO_PCI_BAR0_REGION_INDEX, offset, value, sizeof(*value));
}

int vfio_config_read(int device, u32 offset, void *value, size_t size)
{
	return region_read(device, VFIO_PCI_CONFIG_REGION_INDEX, offset, value, size);
}

/* Whether the device can be used by somebody who has not had it before: 0, or what is in the way. */
int vfio_use(const char *bdf)
{
	int device = vfio_cdev_open(bdf), iommufd, ret;
	void *bar0;
	u32 value;

	if (device < 0)
		return device;
	iommufd = must(iommufd_open());
	ret = vfio_bind(device, iommufd);
	if (!ret)
		ret = vfio_register_read(device, 0, &value);
	if (!ret)
		ret = vfio_bar_map(device, VFIO_PCI_BAR0_REGION_INDEX, REGISTERS, &bar0);
	if (!ret)
		must(sys(munmap(bar0, REGISTERS)));
	close(device);
	close(iommufd);
	return ret;
}

int vfio_config_write(int device, u32 offset, const void *value, size_t size)
{
	u64 base;
	int ret;

	ret = region_offset(device, VFIO_PCI_CONFIG_REGION_INDEX, &base);
	if (ret < 0)
		return ret;
	ret = sys(pwrite(device, value, size, base + offset));
	return ret < 0 ? ret : 0;
}
