// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other ways to get QEMU's guest across, measured beside the live update by
 * bench/ways_to_cross.py: in the same kernel, and by way of a disk.
 */
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ways.h"

#define DISK "/dev/vdb"
#define FOLDER "/disk"

static int go_on(const struct qemu_config *config)
{
	qemu_start(config);
	await("qmp");
	await("resume");
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

static void mount_disk(void)
{
	mkdir(FOLDER, 0755);
	must(sys(mount(DISK, FOLDER, "ext2", 0, NULL)));
	fact("qemu.uri", "file:" FOLDER "/state");
}

/* Nothing is preserved: RAM and all goes to a file, and a plain kexec follows. */
int save_to_disk(void)
{
	struct stat stat;

	mount_disk();
	await("save");
	must_be(!lstat(FOLDER "/state", &stat), "%s", errno_name(-errno));
	fact("state.bytes", "%llu", (u64)stat.st_size);
	fact("mem.available_kb.saved", "%llu", available_kb());
	must(sys(umount(FOLDER)));
	fact_tsc("synced", rdtsc());
	return leave_for_incoming();
}

int load_from_disk(struct qemu_config config)
{
	mount_disk();
	config.qmp = "qmp.incoming";
	config.stopped = config.incoming = true;
	return go_on(&config);
}
