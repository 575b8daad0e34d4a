// SPDX-License-Identifier: GPL-2.0-only
/*
 * The errnos are those of Documentation/driver-api/vfio-pci-liveupdate.rst of
 * the kernel series. The outgoing rules are tried in a session that is closed
 * again: no trick played here can be what carried the device over.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "iommufd.h"
#include "pci_config.h"
#include "rules.h"
#include "vfio.h"

/* Above the device, and a switch between them, if there is one. */
#define PORT "0000:00:02.0"
/* The SMBus of every q35 machine: it is not a PCI Express device, and nobody uses it. */
#define CONVENTIONAL_DEVICE "0000:00:1f.3"
/* What a VF's user has to know, and its PF's has chosen: VFIO_DEVICE_FEATURE_PCI_VF_TOKEN. */
static const u8 vf_token[VFIO_TOKEN_SIZE] = "kexec-stages VF";
/* Not where the guest's memory is. */
#define UNUSED_IOVA 0x1000
#define D3HOT_TO_D0_MS 10
/* It takes no time; the bound is for a host that is busy. */
#define SESSION_MS 10000
/* Any that nothing happens at: a register of BAR 0. */
#define SCRATCH_REGISTER 0x5478

static unsigned int rules_tried;

/* An outcome other than the expected one is told before the "not ok". */
static void rule(const struct nic *nic, const char *name, long expected, long seen)
{
	/* Of a device that this kernel stops, or whose receiver is off, there are none. */
	bool frames = param_lacks_something() || param_control("receiver-off") ||
		      nic_gets_frames(nic);
	char key[32];

	rules_tried++;
	if (seen > 0)
		seen = 0;
	if (seen != expected || !frames) {
		snprintf(key, sizeof(key), "rule.%u.expected", rules_tried);
		fact(key, "%ld %s and frames", expected, expected < 0 ? errno_name(expected) : "");
		snprintf(key, sizeof(key), "rule.%u.seen", rules_tried);
		fact(key, "%ld %s and %s", seen, seen < 0 ? errno_name(seen) : "",
		     frames ? "frames" : "no frame");
	}
	ktap_ok(seen == expected && frames, name);
}

/* For calls that return a fd when they should not: 0 then, and no fd is left open. */
static long closed(long fd)
{
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static u32 capability(const struct nic *nic, u8 id)
{
	u8 position, found;

	must(vfio_config_read(nic->device, PCI_CAPABILITY_LIST, &position, 1));
	while (position) {
		must(vfio_config_read(nic->device, position, &found, 1));
		if (found == id)
			return position;
		must(vfio_config_read(nic->device, position + 1, &position, 1));
	}
	bail("%s has no capability %u", nic->bdf, id);
}

/* Writes back what is there, with the bits of @set. */
static int write_config16(const struct nic *nic, u32 offset, u16 set)
{
	u16 value;

	must(vfio_config_read(nic->device, offset, &value, sizeof(value)));
	value |= set;
	return vfio_config_write(nic->device, offset, &value, sizeof(value));
}

static int write_bar0(const struct nic *nic)
{
	u32 value;

	must(vfio_config_read(nic->device, PCI_BASE_ADDRESS_0, &value, sizeof(value)));
	return vfio_config_write(nic->device, PCI_BASE_ADDRESS_0, &value, sizeof(value));
}

static int map_anonymous(const struct nic *nic)
{
	static void *memory;

	if (!memory)
		memory = mmap(NULL, RING_PAGE_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return iommufd_map_memory(nic->iommufd, nic->ioas, memory, RING_PAGE_SIZE, UNUSED_IOVA);
}

static int unmap_anonymous(const struct nic *nic)
{
	return iommufd_unmap(nic->iommufd, nic->ioas, UNUSED_IOVA, RING_PAGE_SIZE);
}

/* They are disabled again, for the sake of all that comes after. */
static int enable_vfs(const struct nic *nic)
{
	int ret = pci_attribute_write(nic->bdf, "sriov_numvfs", "1");

	pci_attribute_write(nic->bdf, "sriov_numvfs", "0");
	return ret;
}

/* What nobody may do to a device between preserve and FINISH, on either side. */
static void rules_of_frozen_device(const struct nic *nic)
{
	u32 pm = capability(nic, PCI_CAP_ID_PM), express = capability(nic, PCI_CAP_ID_EXP);
	int event = must(sys(eventfd(0, EFD_CLOEXEC))), device = nic->device;
	u64 length = RING_PAGE_SIZE, pa;
	int ret;

	rule(nic, "reset", -EBUSY, vfio_reset(device));
	rule(nic, "hot_reset", -EBUSY, vfio_hot_reset(device));
	rule(nic, "set_irqs_msix", -EBUSY,
	     vfio_set_irq_eventfd(device, VFIO_PCI_MSIX_IRQ_INDEX, event));
	rule(nic, "set_irqs_intx", -EBUSY,
	     vfio_set_irq_eventfd(device, VFIO_PCI_INTX_IRQ_INDEX, event));
	rule(nic, "write_flr_bit", -EBUSY,
	     write_config16(nic, express + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR));
	rule(nic, "write_d3hot", -EBUSY, write_config16(nic, pm + PCI_PM_CTRL, 3));
	rule(nic, "write_command", -EBUSY, write_config16(nic, PCI_COMMAND, 0));
	rule(nic, "write_bar", -EBUSY, write_bar0(nic));
	rule(nic, "low_power_entry", -EBUSY, vfio_low_power_enter(device));
	rule(nic, "sysfs_reset", -EBUSY, pci_attribute_write(nic->bdf, "reset", "1"));
	rule(nic, "sysfs_remove", -EBUSY, pci_attribute_write(nic->bdf, "remove", "1"));
	rule(nic, "sysfs_disable", -EBUSY, pci_attribute_write(nic->bdf, "enable", "0"));
	rule(nic, "enable_vfs", -EBUSY, enable_vfs(nic));
	rule(nic, "sysfs_remove_port", -EBUSY, pci_attribute_write(PORT, "remove", "1"));
	rule(nic, "sysfs_reset_subordinate", -EBUSY,
	     pci_attribute_write(PORT, "reset_subordinate", "1"));
	/* In this control it would wait for ever, and nobody could preserve the device. */
	if (!param_control("unbind-patch-off")) {
		ret = pci_driver_unbind(nic->bdf, "vfio-pci");
		rule(nic, "unbind", -EBUSY, ret);
		must_be(ret != -ETIMEDOUT, "vfio-pci waits for the device's file: no more can be tried");
	}
	rule(nic, "unbind_port", -EBUSY, pci_driver_unbind(PORT, "pcieport"));
	rule(nic, "get_pa_still_works", 0,
	     iommufd_get_pa(nic->iommufd, nic->ioas, NIC_IOVA, &length, &pa));
	close(event);
}

static int group_open(const char *bdf)
{
	int container = must(sys(open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC))), group, device;
	char path[128], link[128];
	ssize_t len;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	len = must(sys(readlink(path, link, sizeof(link) - 1)));
	link[len] = '\0';
	snprintf(path, sizeof(path), "/dev/vfio/noiommu-%.32s", strrchr(link, '/') + 1);
	group = must(sys(open(path, O_RDWR | O_CLOEXEC)));
	must(sys(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container)));
	must(sys(ioctl(container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU)));
	device = sys(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf));
	close(group);
	close(container);
	return device;
}

/* What a device file opened here, and bound and attached as it should be, is preserved to. */
static int preserve_opened(int session_fd, int device, const u8 *token)
{
	int iommufd = must(iommufd_open()), ret;

	must(vfio_bind_with_token(device, iommufd, token));
	must(vfio_attach(device, must(iommufd_ioas_alloc(iommufd))));
	ret = luo_preserve_fd(session_fd, device, TOKEN_UNUSED);
	close(device);
	close(iommufd);
	return ret;
}

static int preserve_from_group(int session_fd, const char *bdf)
{
	int device = must(group_open(bdf)), ret;

	ret = luo_preserve_fd(session_fd, device, TOKEN_UNUSED);
	close(device);
	return ret;
}

/*
 * VFs, a device that has some, one that is not PCI Express, and a file that came
 * from a group, while the first device receives.
 */
void preserve_others(const struct nic *other, int session_fd)
{
	int ret;

	must(vfio_set_vf_token(other->device, vf_token));
	must(pci_attribute_write(other->bdf, "sriov_numvfs", "1"));
	ret = luo_preserve_fd(session_fd, other->device, TOKEN_UNUSED);
	fact("preserve.pf_with_vfs", "%d", ret);
	ret = preserve_opened(session_fd, must(vfio_cdev_open(places()->other_vf)), vf_token);
	fact("preserve.vf", "%d", ret);
	must(pci_driver_bind(CONVENTIONAL_DEVICE, "vfio-pci"));
	ret = preserve_from_group(session_fd, CONVENTIONAL_DEVICE);
	fact("preserve.file_of_group", "%d", ret);
	ret = preserve_opened(session_fd, must(vfio_cdev_open(CONVENTIONAL_DEVICE)), NULL);
	fact("preserve.conventional_pci", "%d", ret);
}

/* A device that cannot be preserved as it is; nothing of the attempt may be left. */
static void rules_of_refused_preserve(const struct nic *nic, int luo_fd, int session_fd)
{
	int event = must(sys(eventfd(0, EFD_CLOEXEC))), device = nic->device, other;
	int unbound = must(vfio_cdev_open(nic->bdf));

	rule(nic, "preserve_unbound_file", -EINVAL,
	     luo_preserve_fd(session_fd, unbound, TOKEN_UNUSED));
	close(unbound);
	rule(nic, "preserve_device_before_memfd", -ENOENT,
	     luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	other = must(luo_create_session(luo_fd, "other"));
	must(luo_preserve_fd(other, nic->memfd, TOKEN_RAM));
	rule(nic, "preserve_with_memfd_elsewhere", -ENOENT,
	     luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	close(other);

	must(luo_preserve_fd(session_fd, nic->memfd, TOKEN_RAM));
	must(vfio_set_irq_eventfd(device, VFIO_PCI_MSIX_IRQ_INDEX, event));
	rule(nic, "preserve_with_msix", -EBUSY, luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	must(vfio_clear_irqs(device, VFIO_PCI_MSIX_IRQ_INDEX));
	must(vfio_set_irq_eventfd(device, VFIO_PCI_INTX_IRQ_INDEX, event));
	rule(nic, "preserve_with_intx", -EBUSY, luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	must(vfio_clear_irqs(device, VFIO_PCI_INTX_IRQ_INDEX));
	must(vfio_set_irq_eventfd(device, VFIO_PCI_ERR_IRQ_INDEX, event));
	rule(nic, "preserve_with_error_eventfd", -EBUSY,
	     luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	must(vfio_set_irq_eventfd(device, VFIO_PCI_ERR_IRQ_INDEX, -1));
	must(vfio_set_irq_eventfd(device, VFIO_PCI_REQ_IRQ_INDEX, event));
	rule(nic, "preserve_with_request_eventfd", -EBUSY,
	     luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	must(vfio_set_irq_eventfd(device, VFIO_PCI_REQ_IRQ_INDEX, -1));
	must(vfio_set_ioeventfd(device, SCRATCH_REGISTER, event));
	rule(nic, "preserve_with_ioeventfd", -EBUSY,
	     luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	must(vfio_set_ioeventfd(device, SCRATCH_REGISTER, -1));
	must(map_anonymous(nic));
	rule(nic, "preserve_with_anonymous_memory", -EINVAL,
	     luo_preserve_fd(session_fd, device, TOKEN_UNUSED));
	must(unmap_anonymous(nic));
	rule(nic, "map_after_refused_preserve", 0, map_anonymous(nic));
	must(unmap_anonymous(nic));
	close(event);
}

/* An image that is no kernel: whoever starts it after all is gone, and what was not sent with him. */
static int kexec_elsewhere(void)
{
	int ret;

	must(kexec_load_without_kho());
	dialogue_drain();
	ret = kexec_start();
	must(kexec_unload_without_kho());
	return ret;
}

/* By a child: whoever waits for a lock that nobody gives back is left waiting. */
static int create_and_close_session(int luo_fd)
{
	struct deadline deadline = deadline_in_ms(SESSION_MS);
	pid_t child = must(sys(fork()));
	int status, session_fd;

	if (!child) {
		session_fd = luo_create_session(luo_fd, "after");
		_exit(session_fd < 0 ? -session_fd : -sys(close(session_fd)));
	}
	while (!must(sys(waitpid(child, &status, WNOHANG)))) {
		if (deadline_passed(deadline))
			return -ETIMEDOUT;
		poll_pause();
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

/* What LUO has locked for a kexec that it then refuses is free again. */
static void rules_of_refused_kexec(const struct nic *nic, int luo_fd)
{
	int ret;

	rule(nic, "kexec_without_kho", -EINVAL, kexec_elsewhere());
	ret = create_and_close_session(luo_fd);
	rule(nic, "session_after_refused_kexec", 0, ret);
	/* Whoever closes the session would be left waiting as well. */
	must_be(ret != -ETIMEDOUT, "nobody gives back LUO's lock");
}

static void rules_of_preserved(const struct nic *nic, int session_fd)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	rule(nic, "preserve_device", 0, luo_preserve_fd(session_fd, nic->device, TOKEN_DEVICE));
	rule(nic, "preserve_device_twice", -EBUSY,
	     luo_preserve_fd(session_fd, nic->device, TOKEN_UNUSED));
	rule(nic, "preserve_with_token_in_use", -EEXIST,
	     luo_preserve_fd(session_fd, nic->memfd, TOKEN_DEVICE));
	rule(nic, "attach_other_ioas", -EBUSY, vfio_attach(nic->device, ioas));
	rule(nic, "detach", -EBUSY, vfio_detach(nic->device));
	rule(nic, "map", -EBUSY, map_anonymous(nic));
	rule(nic, "unmap", -EBUSY, iommufd_unmap(nic->iommufd, nic->ioas, NIC_IOVA, nic->size));
	rule(nic, "resize_memfd", -EPERM, sys(ftruncate(nic->memfd, 2 * nic->size)));
	rules_of_frozen_device(nic);
}

/* Past vfio, which refuses that: as a device that falls asleep by itself would. */
void set_power_state(const struct nic *nic, u16 state)
{
	static const struct timespec settle = { .tv_nsec = D3HOT_TO_D0_MS * 1000000 };
	u32 offset = capability(nic, PCI_CAP_ID_PM) + PCI_PM_CTRL;

	must(pci_config_write(nic->bdf, offset, &state, sizeof(state)));
	nanosleep(&settle, NULL);
}

/*
 * Reboots that are refused, with everything in the session. The other device is
 * frozen after the first: what was frozen before must be as it was.
 */
void refused_reboots(const struct nic *nic, const struct nic *other, int session_fd)
{
	must(kexec_load_without_kho());
	fact("reboot.without_kho", "%d", kexec_start());
	must(kexec_unload_without_kho());

	must(luo_preserve_fd(session_fd, other->memfd, TOKEN_OTHER_MEMORY));
	must(luo_preserve_fd(session_fd, other->device, TOKEN_OTHER_DEVICE));
	must(kexec_load_incoming());
	set_power_state(other, 3);
	fact("reboot.other_asleep", "%d", kexec_start());
	fact("reboot.then_reset", "%d", vfio_reset(nic->device));
}

/*
 * Whoever unbinds the device waits for its file to be closed, and a reboot would
 * wait for him. PCI devices are what this kernel takes for ordinary ones.
 */
void refused_unbinding(const struct nic *nic)
{
	fact("reboot.unbind", "%d", pci_driver_unbind(nic->bdf, "vfio-pci"));
	must(kexec_load_incoming());
	fact("reboot.while_unbinding", "%d", kexec_start());
}

static u16 command_of(const char *bdf)
{
	u16 command;

	pci_config_read(bdf, PCI_COMMAND, PCI_COMMAND + sizeof(command), (u8 *)&command);
	return command;
}

/*
 * Before the device below is opened, which enables the port: whoever disables it is the last.
 * It stays so: a driver that comes writes to the port's command register, for which there
 * must be no guest; see before_kexec().
 */
void free_other_port(void)
{
	must(pci_driver_unbind(places()->other_port, "pcieport"));
}

/*
 * Where no driver is in the way, anybody may disable a port. It is not used by this kernel any
 * more then, but what is preserved below goes on writing through it.
 */
void rule_of_disabled_port(const struct nic *nic, const struct nic *other, int luo_fd)
{
	int session_fd = must(luo_create_session(luo_fd, "disabled"));
	const char *port = places()->other_port;
	u16 command = command_of(port), disabled;

	must_be(command & PCI_COMMAND_MASTER, "%s: 0x%x", port, command);
	must(luo_preserve_fd(session_fd, other->memfd, TOKEN_OTHER_MEMORY));
	must(luo_preserve_fd(session_fd, other->device, TOKEN_OTHER_DEVICE));
	must(pci_attribute_write(port, "enable", "0"));
	disabled = command_of(port);
	close(session_fd);
	must(pci_attribute_write(port, "enable", "1"));
	if (disabled != command)
		must(pci_config_write(port, PCI_COMMAND, &command, sizeof(command)));
	rule(nic, "sysfs_disable_port_without_driver", 0, disabled == command ? 0 : -EIO);
}

/* As if nothing had been. */
static void rules_of_aborted(const struct nic *nic)
{
	rule(nic, "map_after_abort", 0, map_anonymous(nic));
	rule(nic, "unmap_after_abort", 0, unmap_anonymous(nic));
	rule(nic, "write_command_after_abort", 0, write_config16(nic, PCI_COMMAND, 0));
}

void rules_outgoing(const struct nic *nic, int luo_fd)
{
	int session_fd;

	if (nic->ring->left_behind || param_lacks_something()) {
		ktap_skip_rest(NOT_PROMISED);
		return;
	}
	session_fd = must(luo_create_session(luo_fd, SESSION));
	rules_of_refused_preserve(nic, luo_fd, session_fd);
	rules_of_preserved(nic, session_fd);
	rules_of_refused_kexec(nic, luo_fd);
	close(session_fd);
	rules_of_aborted(nic);
}

/* The incoming side */

/* The device is a stranger to this kernel: there is nothing to be refused. */
static bool device_is_incoming(const struct nic *nic)
{
	return !param_control("device-not-preserved") && !param_control_kind("skew-") &&
	       !nic->ring->left_behind;
}

static int driver_write(const char *file, const char *value)
{
	char path[128];
	int fd, ret;

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/vfio-pci/%s", file);
	fd = sys(open(path, O_WRONLY | O_CLOEXEC));
	if (fd < 0)
		return fd;
	ret = sys(write(fd, value, strlen(value)));
	close(fd);
	return ret;
}

/* vfio-pci offers itself for every device of this kind, as a native driver would. */
static int bind_by_id(const struct nic *nic)
{
	char path[128];

	must(driver_write("new_id", "8086 10c9"));
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver", nic->bdf);
	return sys(access(path, F_OK));
}

void rules_before_bind(const struct nic *nic, int session_fd)
{
	if (!device_is_incoming(nic) || param_lacks_something())
		return;
	rule(nic, "bind_by_id_without_override", -ENOENT, bind_by_id(nic));
	rule(nic, "bind_by_hand_without_override", -ENODEV, driver_write("bind", nic->bdf));
	must(driver_write("remove_id", "8086 10c9"));
	rule(nic, "retrieve_before_bind", -EAGAIN,
	     closed(luo_retrieve_fd(session_fd, TOKEN_DEVICE)));
	rule(nic, "sysfs_reset_before_bind", -EBUSY, pci_attribute_write(nic->bdf, "reset", "1"));
	rule(nic, "sysfs_remove_before_bind", -EBUSY, pci_attribute_write(nic->bdf, "remove", "1"));
}

/* What this process may do, without CAP_SYS_RAWIO or with all that it had. */
static void set_rawio(bool on)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	must(sys(syscall(SYS_capget, &header, data)));
	if (on)
		data[CAP_TO_INDEX(CAP_SYS_RAWIO)].effective |= CAP_TO_MASK(CAP_SYS_RAWIO);
	else
		data[CAP_TO_INDEX(CAP_SYS_RAWIO)].effective &= ~CAP_TO_MASK(CAP_SYS_RAWIO);
	must(sys(syscall(SYS_capset, &header, data)));
}

/* Another one, who may, can still have the device. */
static long retrieve_without_privilege(int session_fd)
{
	long ret;

	set_rawio(false);
	ret = closed(luo_retrieve_fd(session_fd, TOKEN_DEVICE));
	set_rawio(true);
	return ret;
}

void rules_before_retrieve(const struct nic *nic, int session_fd)
{
	if (!device_is_incoming(nic))
		return;
	if (!param_lacks_something()) {
		rule(nic, "kexec_with_a_session_unfinished", -EBUSY, kexec_elsewhere());
		rule(nic, "retrieve_without_privilege", -EPERM,
		     retrieve_without_privilege(session_fd));
	}
	rule(nic, "open_cdev", -EBUSY, closed(vfio_cdev_open(nic->bdf)));
	rule(nic, "open_group", -EBUSY, closed(group_open(nic->bdf)));
}

/* File status flags belong to the open file, not to the descriptor. */
static long is_same_file(int fd, int again)
{
	if (again < 0)
		return again;
	must(sys(fcntl(fd, F_SETFL, O_NONBLOCK)));
	return must(sys(fcntl(again, F_GETFL))) & O_NONBLOCK ? 0 : -EBADF;
}

/* A device that is let go is an ordinary one: whoever takes it away waits for its file. */
static void finish_too_early(const struct nic *nic, const char *name, int session_fd)
{
	int ret = luo_finish(session_fd);

	rule(nic, name, -EBUSY, ret);
	must_be(ret, "FINISH was not refused: %s", name);
}

void rules_before_attach(const struct nic *nic, int session_fd, int device)
{
	int again = luo_retrieve_fd(session_fd, TOKEN_DEVICE);

	rule(nic, "retrieve_twice_is_same_file", 0, is_same_file(device, again));
	if (again >= 0)
		close(again);
	finish_too_early(nic, "finish_when_not_bound", session_fd);
}

/* FINISH lets go of the pins that keep the memory in place, so an IOAS must have its own. */
void rules_of_finish(const struct nic *nic, int session_fd)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	finish_too_early(nic, "finish_when_not_attached", session_fd);
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, nic->size,
			      NIC_IOVA + RING_PAGE_SIZE));
	must(vfio_attach(nic->device, ioas));
	finish_too_early(nic, "finish_with_memory_elsewhere", session_fd);
	must(vfio_detach(nic->device));
	must(iommufd_unmap(nic->iommufd, ioas, NIC_IOVA + RING_PAGE_SIZE, nic->size));
	/* All of the file at the right IOVAs, but from another page on. */
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, RING_PAGE_SIZE,
			      nic->size - RING_PAGE_SIZE, NIC_IOVA));
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, RING_PAGE_SIZE,
			      NIC_IOVA + nic->size - RING_PAGE_SIZE));
	must(vfio_attach(nic->device, ioas));
	finish_too_early(nic, "finish_with_other_pages", session_fd);
	must(vfio_detach(nic->device));
	must(iommufd_unmap(nic->iommufd, ioas, NIC_IOVA, nic->size));
	/* What is mapped is right, and the rest is missing. */
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, nic->size / 2, NIC_IOVA));
	must(vfio_attach(nic->device, ioas));
	finish_too_early(nic, "finish_with_half_of_the_memory", session_fd);
	must(vfio_detach(nic->device));
	must(iommufd_unmap(nic->iommufd, ioas, NIC_IOVA, nic->size / 2));
}

/* What was taken over can be handed over again, and that be called off. */
void rule_of_another_update(const struct nic *nic, int luo_fd)
{
	int session_fd = must(luo_create_session(luo_fd, "again"));
	int ret = luo_preserve_fd(session_fd, nic->memfd, TOKEN_RAM);

	if (!ret)
		ret = luo_preserve_fd(session_fd, nic->device, TOKEN_DEVICE);
	rule(nic, "preserve_after_finish", 0, ret);
	close(session_fd);
}

void rules_of_adopted(const struct nic *nic)
{
	rules_of_frozen_device(nic);
}

/*
 * The device is taken away, and found again, while another one is still waiting to be
 * retrieved. It is none of those that are preserved any more.
 */
void find_again(const struct nic *nic)
{
	must(pci_attribute_write(nic->bdf, "remove", "1"));
	must(pci_rescan());
	fact("found.reset", "%d", pci_attribute_write(nic->bdf, "reset", "1"));
	fact("found.remove", "%d", pci_attribute_write(nic->bdf, "remove", "1"));
}

/* Whoever reads a register is killed, or refused, while the device does not decode its memory space. */
static bool bar_is_unmapped(const struct nic *nic)
{
	u16 command, off;
	int status, ret;
	pid_t reader;
	u32 value;

	must(vfio_config_read(nic->device, PCI_COMMAND, &command, sizeof(command)));
	off = command & ~PCI_COMMAND_MEMORY;
	if (vfio_config_write(nic->device, PCI_COMMAND, &off, sizeof(off)) < 0)
		return false;
	reader = must(sys(fork()));
	if (!reader) {
		igb_rx_head(&nic->igb);
		_exit(0);
	}
	must(sys(waitpid(reader, &status, 0)));
	ret = vfio_register_read(nic->device, SCRATCH_REGISTER, &value);
	must(vfio_config_write(nic->device, PCI_COMMAND, &command, sizeof(command)));
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS && ret == -EIO;
}

/*
 * The ports above it are ordinary ones as well, unless another device is still in the way. (A reset
 * of the bus below is let through by the same test, and takes 2 s.)
 */
static void rule_of_ports(bool others)
{
	int expected = others && param_u64("switch", 0) ? -EBUSY : 0;

	ktap_ok(pci_driver_unbind(PORT, "pcieport") == expected, "unbind_of_port_after_close");
}

static u8 cache_line_size(const char *bdf)
{
	u8 size;

	pci_config_read(bdf, PCI_CACHE_LINE_SIZE, PCI_CACHE_LINE_SIZE + 1, &size);
	return size;
}

/* It is an ordinary device again: it can be reset, closed and opened. @others: are preserved yet */
void rules_after_finish(struct nic *nic, bool others)
{
	/*
	 * All of it on one CPU, as BARs come and go: QEMU's TCG misreads the HPET for
	 * another one then (docs/oddities.md).
	 */
	run_on_cpu(0);
	ktap_ok(!vfio_reset(nic->device), "reset_after_finish");
	ktap_ok(bar_is_unmapped(nic), "no_register_without_memory_space");
	nic_close(nic);
	ktap_ok(cache_line_size(nic->bdf) != USERS_CACHE_LINE, "config_restored_by_close");
	ktap_ok(!vfio_use(nic->bdf), "open_after_close");
	report_let_go(nic->bdf);
	rule_of_ports(others);
}

/* Nobody has anything of it any more: whoever waits for that does not wait for long. */
void rule_of_unbinding(const struct nic *nic)
{
	int ret = pci_driver_unbind(nic->bdf, "vfio-pci");

	ktap_ok(!ret, "unbind_after_close");
	/* This process would never end. */
	must_be(ret != -ETIMEDOUT, "vfio-pci waits for the device, which nobody has open");
}
