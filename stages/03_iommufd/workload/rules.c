// SPDX-License-Identifier: GPL-2.0-only
/*
 * The errnos are those of Documentation/driver-api/iommu-liveupdate.rst and of
 * include/uapi/linux/iommufd_liveupdate.h of the kernel series. Whatever is
 * preserved here is in a session that is closed again: no trick played here can
 * be what carried the device over.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/pci_regs.h>
#include <linux/reboot.h>

#include "hwpt.h"
#include "iommufd.h"
#include "rules.h"
#include "vfio.h"

/* One page of it is not what the IOAS has pinned. */
#define EXTRA_SIZE (16 * RING_PAGE_SIZE)
#define PAGE RING_PAGE_SIZE
#define TOKEN_HWPT_UNUSED 0x5000
#define INTERRUPTS_IOVA 0xfee00000ull
/* So often memory is pinned and unpinned of which a user may lock twice as much at a time. */
#define LOCKED_TIMES 8
/* PCI_PM_CTRL_STATE_MASK */
#define D3HOT 3

/* An outcome other than the expected one is told before the "not ok". */
static void rule(const struct nic *nic, const char *name, long ret, long expected)
{
	bool goes_on = !nic->igb.bar0 || nic_goes_on(nic);
	char key[64];

	if (ret > 0)
		ret = 0;
	if (ret != expected || !goes_on) {
		snprintf(key, sizeof(key), "rule.%s", name);
		fact(key, "%ld%s", ret, goes_on ? "" : ", and the device has stopped");
	}
	ktap_ok(ret == expected && goes_on, name);
}

/* As a user who may lock so many bytes: whoever has the capability is not even counted. */
static void limit_locked_memory(u64 size)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	struct rlimit limit = { .rlim_cur = size, .rlim_max = size };

	must(sys(syscall(SYS_capget, &header, data)));
	data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
	must(sys(syscall(SYS_capset, &header, data)));
	must(sys(setrlimit(RLIMIT_MEMLOCK, &limit)));
}

/* What @try returns, 0 for a success, to a process that may lock @size bytes. */
static int with_limit(const struct nic *nic, u64 size, int (*try)(const struct nic *nic))
{
	pid_t child = must(sys(fork()));
	int status, ret;

	if (!child) {
		limit_locked_memory(size);
		ret = try(nic);
		_exit(ret < 0 ? -ret : 0);
	}
	must(sys(waitpid(child, &status, 0)));
	must_be(WIFEXITED(status), "status 0x%x", status);
	return -WEXITSTATUS(status);
}

/* The outgoing side */

/* A session with all memory but what is mapped in addition. */
static int session_with_memory(const struct nic *nic, int luo)
{
	int session = must(luo_create_session(luo, SESSION));

	must(luo_preserve_fd(session, nic->memfd, TOKEN_RAM));
	must(luo_preserve_fd(session, nic->canary, TOKEN_CANARY));
	return session;
}

static int preserve_iommufd(const struct nic *nic, int luo)
{
	int session = session_with_memory(nic, luo), ret;

	ret = luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD);
	close(session);
	return ret;
}

static void rule_of_device_elsewhere(const struct nic *nic, int luo)
{
	u32 hwpt = must(iommufd_hwpt_alloc(nic->iommufd, nic->dev_id, nic->ioas));
	int session = session_with_memory(nic, luo);

	must(iommufd_hwpt_mark(nic->iommufd, hwpt, TOKEN_HWPT_UNUSED));
	must(luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD));
	rule(nic, "preserve_device_of_another_hwpt",
	     luo_preserve_fd(session, nic->device, TOKEN_DEVICE), -EINVAL);
	close(session);
	must(iommufd_destroy(nic->iommufd, hwpt));
}

/* As long as nothing is marked. Of a kernel that has no marks nothing is asked. */
void rules_of_marking(const struct nic *nic, int luo)
{
	if (iommufd_hwpt_mark(nic->iommufd, nic->hwpt, 0) == -ENOTTY)
		return;
	rule(nic, "preserve_unmarked", preserve_iommufd(nic, luo), -EINVAL);
	rule(nic, "mark_with_token_0", iommufd_hwpt_mark(nic->iommufd, nic->hwpt, 0), -EINVAL);
	rule(nic, "mark_an_ioas", iommufd_hwpt_mark(nic->iommufd, nic->ioas, TOKEN_HWPT),
	     -ENOENT);
	rule_of_device_elsewhere(nic, luo);
}

static void rules_of_tokens(const struct nic *nic)
{
	u32 hwpt = must(iommufd_hwpt_alloc(nic->iommufd, nic->dev_id, nic->ioas));

	rule(nic, "mark_again", iommufd_hwpt_mark(nic->iommufd, nic->hwpt, TOKEN_HWPT), 0);
	rule(nic, "mark_with_token_in_use", iommufd_hwpt_mark(nic->iommufd, hwpt, TOKEN_HWPT),
	     -EADDRINUSE);
	must(iommufd_destroy(nic->iommufd, hwpt));
}

/* Memory that the device may use, and that cannot be handed over like this. */
static void rules_of_memory(const struct nic *nic, int luo)
{
	void *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must_be(memory != MAP_FAILED, "%s", errno_name(-errno));
	must(iommufd_map_memory(nic->iommufd, nic->ioas, memory, PAGE, EXTRA_IOVA));
	rule(nic, "preserve_with_anonymous_memory", preserve_iommufd(nic, luo), -EINVAL);
	must(iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, PAGE));
	munmap(memory, PAGE);
}

static int map_and_unmap(const struct nic *nic)
{
	return iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, EXTRA_SIZE, EXTRA_IOVA) ?:
	       iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, EXTRA_SIZE);
}

static int map_and_unmap_often(const struct nic *nic)
{
	int ret = 0;

	for (int i = 0; i < LOCKED_TIMES && !ret; i++)
		ret = map_and_unmap(nic);
	return ret;
}

/* What is pinned counts against the user's limit for as long as it is, and no longer. */
static void rules_of_locked_memory(const struct nic *nic)
{
	rule(nic, "map_more_than_may_be_locked", with_limit(nic, EXTRA_SIZE / 2, map_and_unmap),
	     -ENOMEM);
	rule(nic, "map_often_what_may_be_locked",
	     with_limit(nic, 2 * EXTRA_SIZE, map_and_unmap_often), 0);
}

/* It stays mapped, and is handed over with the rest, unless the kernel refuses it. */
static void rule_of_read_only_memory(const struct nic *nic, int luo)
{
	int ret;

	must(nic_map_read_only(nic, nic->ioas));
	ret = preserve_iommufd(nic, luo);
	rule(nic, "preserve_with_read_only_memory", ret, 0);
	nic->reader->read_only = !ret;
	if (ret)
		must(iommufd_unmap(nic->iommufd, nic->ioas, READ_ONLY_IOVA, PAGE));
}

/* The file has another page at @page than the one that a device would write to. */
static void rule_of_lost_page(const struct nic *nic, int luo, int memfd, u64 page, const char *name)
{
	int session;
	u8 byte = 1;

	must(iommufd_map_file(nic->iommufd, nic->ioas, memfd, 0, EXTRA_SIZE, EXTRA_IOVA));
	must(sys(fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE)));
	must(sys(pwrite(memfd, &byte, 1, page * PAGE)));
	session = session_with_memory(nic, luo);
	must(luo_preserve_fd(session, memfd, TOKEN_EXTRA));
	rule(nic, name, luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD), -EINVAL);
	close(session);
	must(iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, EXTRA_SIZE));
}

/* One page alone, wherever it is: the kernel has to look at each of them. */
static void rules_of_memory_of_a_file(const struct nic *nic, int luo)
{
	int memfd = must(sys(memfd_create("extra", MFD_CLOEXEC)));

	must(sys(ftruncate(memfd, EXTRA_SIZE)));
	must(iommufd_map_file(nic->iommufd, nic->ioas, memfd, 0, EXTRA_SIZE, EXTRA_IOVA));
	rule(nic, "preserve_with_memory_elsewhere", preserve_iommufd(nic, luo), -ENOENT);
	must(iommufd_unmap(nic->iommufd, nic->ioas, EXTRA_IOVA, EXTRA_SIZE));
	rule_of_lost_page(nic, luo, memfd, 0, "preserve_with_the_first_page_lost");
	rule_of_lost_page(nic, luo, memfd, 3, "preserve_with_a_page_lost");
	rule_of_lost_page(nic, luo, memfd, EXTRA_SIZE / PAGE - 1, "preserve_with_the_last_page_lost");
	close(memfd);
}

/* What a device writes there is an interrupt, whatever is mapped. */
static void rule_of_interrupts_window(const struct nic *nic)
{
	rule(nic, "map_where_interrupts_are",
	     iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, PAGE, INTERRUPTS_IOVA),
	     -EINVAL);
}

void rules_of_marked(const struct nic *nic, int luo)
{
	rule_of_interrupts_window(nic);
	rules_of_tokens(nic);
	rules_of_memory(nic, luo);
	rules_of_locked_memory(nic);
	rule_of_read_only_memory(nic, luo);
	rules_of_memory_of_a_file(nic, luo);
}

/* Behind the kernel's back; vfio would refuse. Returns what it was. */
static u16 set_power_state(const struct nic *nic, u16 state)
{
	u16 command, before;
	char path[128];
	u8 at, found;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", nic->bdf);
	fd = must(sys(open(path, O_RDWR | O_CLOEXEC)));
	must(sys(pread(fd, &at, 1, PCI_CAPABILITY_LIST)));
	for (must(sys(pread(fd, &found, 1, at))); found != PCI_CAP_ID_PM;
	     must(sys(pread(fd, &found, 1, at)))) {
		must(sys(pread(fd, &at, 1, at + PCI_CAP_LIST_NEXT)));
		must_be(at, "%s has no power management", nic->bdf);
	}
	must(sys(pread(fd, &command, sizeof(command), at + PCI_PM_CTRL)));
	before = command & PCI_PM_CTRL_STATE_MASK;
	command = (command & ~PCI_PM_CTRL_STATE_MASK) | state;
	must(sys(pwrite(fd, &command, sizeof(command), at + PCI_PM_CTRL)));
	close(fd);
	return before;
}

/*
 * A device that sleeps cannot fetch descriptors, and QEMU's igb takes what it gets
 * instead for some: the ring is used up. So it has none meanwhile.
 */
static void keep_frames_back(const struct nic *nic)
{
	do {
		igb_rx_set_tail(&nic->igb, igb_rx_head(&nic->igb));
	} while (igb_rx_head(&nic->igb) != igb_rx_tail(&nic->igb));
}

/*
 * The kexec is called off when all is frozen but the last device, which sleeps and
 * must not. Translation, root table and the first device are as they were then.
 */
void rules_of_late_refusal(const struct nic *nic, struct nic *other, int luo)
{
	int session = session_with_memory(nic, luo), ret;
	u16 state;
	u32 tail;

	must(iommufd_hwpt_mark(other->iommufd, other->hwpt, TOKEN_OTHER_HWPT));
	must(luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD));
	must(luo_preserve_fd(session, nic->device, TOKEN_DEVICE));
	must(luo_preserve_fd(session, other->memfd, TOKEN_OTHER_RAM));
	must(luo_preserve_fd(session, other->iommufd, TOKEN_OTHER_IOMMUFD));
	rule(nic, "preserve_second_device",
	     luo_preserve_fd(session, other->device, TOKEN_OTHER_DEVICE), 0);
	must(kexec_load_incoming());
	tail = igb_rx_tail(&other->igb);
	keep_frames_back(other);
	state = set_power_state(other, D3HOT);
	ret = sys(syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			  LINUX_REBOOT_CMD_KEXEC, NULL));
	set_power_state(other, state);
	igb_rx_set_tail(&other->igb, tail);
	rule(nic, "kexec_with_a_device_asleep", ret, -EIO);
	rule(nic, "unmap_after_refused_kexec",
	     iommufd_unmap(nic->iommufd, nic->ioas, chunk_iova(nic, 0), CHUNK), -EBUSY);
	close(session);
}

void rule_of_order(const struct nic *nic, int session)
{
	rule(nic, "preserve_device_before_iommufd",
	     luo_preserve_fd(session, nic->device, TOKEN_DEVICE), -ENOENT);
}

/*
 * An IOAS that is handed over, or taken over, does not change. There may be another
 * HWPT of it, but not for the device.
 */
static void rules_of_frozen_ioas(const struct nic *nic)
{
	u32 hwpt = must(iommufd_hwpt_alloc(nic->iommufd, nic->dev_id, nic->ioas));

	rule(nic, "attach_another_hwpt", vfio_attach(nic->device, hwpt), -EBUSY);
	must(iommufd_destroy(nic->iommufd, hwpt));
	rule(nic, "map",
	     iommufd_map_file(nic->iommufd, nic->ioas, nic->memfd, 0, PAGE, EXTRA_IOVA), -EBUSY);
	rule(nic, "unmap", iommufd_unmap(nic->iommufd, nic->ioas, chunk_iova(nic, 0), CHUNK), -EBUSY);
	rule(nic, "copy", iommufd_copy(nic->iommufd, nic->ioas, IOVA, PAGE, EXTRA_IOVA), -EBUSY);
	rule(nic, "detach", vfio_detach(nic->device), -EBUSY);
	rule(nic, "destroy", iommufd_destroy(nic->iommufd, nic->hwpt), -EBUSY);
}

void rules_of_preserved(const struct nic *nic)
{
	rule(nic, "mark_when_preserved",
	     iommufd_hwpt_mark(nic->iommufd, nic->hwpt, TOKEN_HWPT), -EBUSY);
	rules_of_frozen_ioas(nic);
}

/* The incoming side */

static int driver_bind_by_hand(const struct nic *nic)
{
	int fd = must(sys(open("/sys/bus/pci/drivers/vfio-pci/bind", O_WRONLY | O_CLOEXEC))), ret;

	ret = sys(write(fd, nic->bdf, strlen(nic->bdf)));
	close(fd);
	return ret;
}

void rule_of_incoming(const struct nic *nic)
{
	rule(nic, "driver_without_override", driver_bind_by_hand(nic), -ENODEV);
}

/* Nobody but who has the file from the session, and nowhere but where it was. */
void rules_of_retrieved(const struct nic *nic)
{
	int iommufd = must(iommufd_open()), again = vfio_cdev_open(nic->bdf);

	rule(nic, "open_cdev", again, -EBUSY);
	if (again >= 0)
		close(again);
	rule(nic, "bind_to_another_iommufd", vfio_bind(nic->device, iommufd), -EPERM);
	close(iommufd);
}

static int restore(const struct nic *nic, u32 ioas, u64 token)
{
	return iommufd_hwpt_restore(nic->iommufd, nic->dev_id, ioas, token);
}

void rules_of_bound(const struct nic *nic, int session)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));
	int hwpt = must(iommufd_hwpt_alloc(nic->iommufd, nic->dev_id, ioas));

	rule(nic, "finish_when_not_restored", luo_finish(session), -EBUSY);
	rule(nic, "attach_an_ioas", vfio_attach(nic->device, ioas), -EBUSY);
	rule(nic, "attach_a_new_hwpt", vfio_attach(nic->device, hwpt), -EBUSY);
	must(iommufd_destroy(nic->iommufd, hwpt));
	must(iommufd_destroy(nic->iommufd, ioas));
}

static void map_all_but_last(const struct nic *nic, u32 ioas)
{
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, BUFFERS, IOVA));
	for (u32 i = 0; i + 1 < CHUNKS; i++)
		must(nic_map_chunk(nic, ioas, i, i));
}

static void map_all_but_apart(const struct nic *nic, u32 ioas)
{
	map_all_but_last(nic, ioas);
	must(nic_map_chunk(nic, ioas, CHUNKS - 1, CHUNKS - 1));
	if (nic->reader->read_only)
		must(nic_map_read_only(nic, ioas));
}

/*
 * The last chunk's area is left out, and @map_last says what is there instead. The
 * result is not must(): where nobody compares, it is the HWPT that was asked for.
 */
static int restore_with_last_area(const struct nic *nic,
				  int (*map_last)(const struct nic *nic, u32 ioas))
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));
	int ret;

	map_all_but_last(nic, ioas);
	nic_map_apart(nic, ioas);
	if (nic->reader->read_only)
		must(nic_map_read_only(nic, ioas));
	must(map_last(nic, ioas));
	ret = restore(nic, ioas, TOKEN_HWPT);
	iommufd_destroy(nic->iommufd, ioas);
	return ret;
}

static void rule_of_last_area(const struct nic *nic, const char *name,
			      int (*map_last)(const struct nic *nic, u32 ioas))
{
	rule(nic, name, restore_with_last_area(nic, map_last), -EINVAL);
}

/* All is there, and what the device may only read is said to be writeable. */
static void rule_of_read_only_area(const struct nic *nic)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	map_all_but_last(nic, ioas);
	nic_map_apart(nic, ioas);
	must(nic_map_chunk(nic, ioas, CHUNKS - 1, CHUNKS - 1));
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, PAGE, READ_ONLY_IOVA));
	rule(nic, "restore_with_a_read_only_area_writeable", restore(nic, ioas, TOKEN_HWPT),
	     -EINVAL);
	iommufd_destroy(nic->iommufd, ioas);
}

/*
 * Pages that are apart in the table, mapped as neighbours: in memory as in the file they are one
 * piece, of which the first page is right.
 */
static void rule_of_pages_apart(const struct nic *nic)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	map_all_but_apart(nic, ioas);
	must(iommufd_map_file(nic->iommufd, ioas, nic->memfd, APART_FIRST, 2 * PAGE, APART_IOVA));
	rule(nic, "restore_with_the_next_page_in_place_of_another", restore(nic, ioas, TOKEN_HWPT),
	     -EINVAL);
	iommufd_destroy(nic->iommufd, ioas);
}

static int map_nothing(const struct nic *nic, u32 ioas)
{
	return nic && ioas ? 0 : -EINVAL;
}

static int map_half(const struct nic *nic, u32 ioas)
{
	return iommufd_map_file(nic->iommufd, ioas, nic->memfd, MEMORY_SIZE - CHUNK, CHUNK / 2,
				chunk_iova(nic, CHUNKS - 1));
}

static int map_two_halves(const struct nic *nic, u32 ioas)
{
	return nic_map_in_two(nic, ioas, CHUNKS - 1, CHUNK / 2);
}

/* An area of such an IOAS can be split between any two pages. */
static int restore_without_large_pages(const struct nic *nic)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));
	int ret;

	must(iommufd_disable_large_pages(nic->iommufd, ioas));
	nic_map_all_again(nic, ioas);
	ret = restore(nic, ioas, TOKEN_HWPT);
	iommufd_destroy(nic->iommufd, ioas);
	return ret;
}

static int map_chunk_before(const struct nic *nic, u32 ioas)
{
	return nic_map_chunk(nic, ioas, CHUNKS - 1, CHUNKS - 2);
}

static int map_a_page_off(const struct nic *nic, u32 ioas)
{
	return iommufd_map_file(nic->iommufd, ioas, nic->memfd, MEMORY_SIZE - CHUNK - PAGE, CHUNK,
				chunk_iova(nic, CHUNKS - 1));
}

static int map_read_only(const struct nic *nic, u32 ioas)
{
	return iommufd_map_file_read_only(nic->iommufd, ioas, nic->memfd, MEMORY_SIZE - CHUNK,
					  CHUNK, chunk_iova(nic, CHUNKS - 1));
}

static int map_another_file(const struct nic *nic, u32 ioas)
{
	int memfd = must(sys(memfd_create("another", MFD_CLOEXEC))), ret;

	must(sys(ftruncate(memfd, CHUNK)));
	ret = iommufd_map_file(nic->iommufd, ioas, memfd, 0, CHUNK, chunk_iova(nic, CHUNKS - 1));
	close(memfd);
	return ret;
}

static int map_one_more(const struct nic *nic, u32 ioas)
{
	return nic_map_chunk(nic, ioas, CHUNKS - 1, CHUNKS - 1) ?:
	       iommufd_map_file(nic->iommufd, ioas, nic->memfd, 0, PAGE, EXTRA_IOVA);
}

/* As large as the table: pages are pinned and compared, and let go when the last ones are not right. */
static int restore_wrongly(const struct nic *nic)
{
	return restore_with_last_area(nic, map_chunk_before);
}

static int restore_wrongly_often(const struct nic *nic)
{
	int ret = -EINVAL;

	for (int i = 0; i < LOCKED_TIMES && ret == -EINVAL; i++)
		ret = restore_wrongly(nic);
	return ret;
}

/* The right pages, but not as a file's: FINISH would never take them. */
static int map_memory(const struct nic *nic, u32 ioas)
{
	return iommufd_map_memory(nic->iommufd, ioas, nic->memory + MEMORY_SIZE - CHUNK, CHUNK,
				  chunk_iova(nic, CHUNKS - 1));
}

/*
 * All is right but where the answer is to go: nobody has the HWPT, and the IOAS is
 * nobody's. The page table goes on being the device's.
 */
static void rules_of_unanswered(const struct nic *nic)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	nic_map_all_again(nic, ioas);
	rule(nic, "restore_to_read_only_memory",
	     iommufd_hwpt_restore_unanswered(nic->iommufd, nic->dev_id, ioas, TOKEN_HWPT), -EFAULT);
	rule(nic, "unmap_after_restore_to_read_only_memory",
	     iommufd_unmap(nic->iommufd, ioas, chunk_iova(nic, 1), CHUNK), 0);
	iommufd_destroy(nic->iommufd, ioas);
}

/* Each of them is a wrong idea of what is mapped. */
void rules_of_restore(const struct nic *nic)
{
	u32 ioas = must(iommufd_ioas_alloc(nic->iommufd));

	rule(nic, "restore_with_nothing_mapped", restore(nic, ioas, TOKEN_HWPT), -EINVAL);
	rule(nic, "restore_unknown_token", restore(nic, ioas, TOKEN_HWPT_UNUSED), -ENOENT);
	iommufd_destroy(nic->iommufd, ioas);
	rule_of_last_area(nic, "restore_with_an_area_missing", map_nothing);
	rule_of_last_area(nic, "restore_with_half_an_area", map_half);
	rule_of_last_area(nic, "restore_with_a_large_page_split", map_two_halves);
	rule(nic, "restore_without_large_pages", restore_without_large_pages(nic), -EINVAL);
	rule_of_last_area(nic, "restore_with_an_area_twice", map_chunk_before);
	rule_of_last_area(nic, "restore_with_an_area_a_page_off", map_a_page_off);
	rule_of_last_area(nic, "restore_with_an_area_read_only", map_read_only);
	rule_of_read_only_area(nic);
	rule_of_last_area(nic, "restore_with_another_file", map_another_file);
	rule_of_last_area(nic, "restore_with_an_area_more", map_one_more);
	rule_of_last_area(nic, "restore_with_memory_of_the_process", map_memory);
	rule_of_pages_apart(nic);
	rule(nic, "restore_more_than_may_be_locked",
	     with_limit(nic, MEMORY_SIZE / 4, restore_wrongly), -ENOMEM);
	rule(nic, "restore_often_what_may_be_locked",
	     with_limit(nic, 2 * MEMORY_SIZE, restore_wrongly_often), -EINVAL);
	rules_of_unanswered(nic);
}

/* @ret: of the right one, after all that were refused */
void rule_of_right_restore(const struct nic *nic, int ret)
{
	rule(nic, "restore_after_refusals", ret, 0);
}

void rules_of_restored(const struct nic *nic, int session)
{
	rule(nic, "restore_twice", restore(nic, nic->ioas, TOKEN_HWPT), -EBUSY);
	rule(nic, "finish_when_not_attached", luo_finish(session), -EBUSY);
}

/* What was taken over can be handed over again, and that be called off; the HWPT is marked yet. */
void rule_of_another_update(const struct nic *nic, int luo)
{
	int session = session_with_memory(nic, luo), ret;

	ret = luo_preserve_fd(session, nic->iommufd, TOKEN_IOMMUFD);
	if (!ret)
		ret = luo_preserve_fd(session, nic->device, TOKEN_DEVICE);
	rule(nic, "preserve_after_finish", ret, 0);
	close(session);
	rule_of_interrupts_window(nic);
}

void rules_of_adopted(const struct nic *nic)
{
	rules_of_frozen_ioas(nic);
}
