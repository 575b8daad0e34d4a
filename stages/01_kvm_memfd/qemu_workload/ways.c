// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other ways to get QEMU's guest across, measured beside the live update by
 * bench/ways_to_cross.py: in the same kernel, and by way of a place that
 * outlives any kexec without LUO's help. That is a disk, to which QEMU saves
 * RAM and all, or emulated PMEM (memmap=SIZE!START), in which RAM lies anyway.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "free_memory.h"
#include "guest_ram.h"
#include "ways.h"

#define FOLDER "/place"
#define STATE FOLDER "/state"
#define RAM FOLDER "/ram"
#define PMEM "/dev/pmem0"
#define PMEM_MS 10000

/* A large guest's RAM goes to a disk and comes from it; the host gives up before. */
#define MIGRATION_MS 900000

static int go_on(const struct qemu_config *config)
{
	qemu_start(config);
	await("qmp");
	await_within("resume", MIGRATION_MS);
	report_free_memory("resuming");
	await("swept");
	return 0;
}

/* Without a kexec: another QEMU takes over. Two of them cannot have the guest's line. */
int cross_in_place(struct qemu_config config, pid_t outgoing)
{
	must(sys(kill(outgoing, SIGKILL)));
	must_be(qemu_ended(outgoing, 5000), "QEMU outlives SIGKILL");
	dialogue_line("# at in-place");
	config.qmp = "qmp.incoming";
	config.stopped = config.incoming = true;
	return go_on(&config);
}

static bool in_pmem(void)
{
	return param_control("pmem");
}

bool place_wanted(void)
{
	return param_control("disk") || in_pmem();
}

/* libnvdimm looks at its devices in the background, and at a large one for a while. */
static void await_pmem(void)
{
	struct deadline deadline = deadline_in_ms(PMEM_MS);

	while (access(PMEM, F_OK) && !deadline_passed(deadline))
		poll_pause();
}

/* The host has made the disk's file system; PMEM is empty when the machine starts. */
void place_prepare(void)
{
	mkdir(FOLDER, 0755);
	if (in_pmem())
		await_pmem();
	if (in_pmem() && param_side() == SIDE_OUTGOING)
		qemu_disk_mkfs(PMEM);
	if (in_pmem())
		must(sys(mount(PMEM, FOLDER, "ext4", 0, "dax=always")));
	else
		must(sys(mount("/dev/vdb", FOLDER, "ext2", 0, NULL)));
	fact("qemu.uri", "file:" STATE);
}

/* RAM as it is on this side: the same in PMEM, new where it comes from a disk. */
int ram_new(u64 size)
{
	int fd;

	if (!in_pmem())
		return memfd_new("guest-ram", size);
	fd = must(sys(open(RAM, O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
	must(-posix_fallocate(fd, 0, size));
	return fd;
}

/* Nothing is preserved: what QEMU saves goes to a file, and a plain kexec follows. */
int save_to_place(void)
{
	struct stat stat;

	await_within("save", MIGRATION_MS);
	must_be(!lstat(STATE, &stat), "%s", errno_name(-errno));
	fact("state.bytes", "%llu", (u64)stat.st_size);
	sync();
	fact_counter("synced", read_counter());
	report_free_memory("saving");
	return leave_for_incoming();
}

int load_from_place(struct qemu_config config)
{
	config.qmp = "qmp.incoming";
	config.stopped = config.incoming = true;
	return go_on(&config);
}
