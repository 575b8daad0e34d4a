// SPDX-License-Identifier: GPL-2.0-only
/* PID 1: runs /iommufd, says how it ended, and powers the machine off. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || dprintf(fd, "%s", text) < 0)
		printf("# %s: cannot be written\n", path);
	if (fd >= 0)
		close(fd);
}

int main(void)
{
	int status = -1, pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	/* Of 2 MiB each. */
	write_file("/proc/sys/vm/nr_hugepages", "96");
	/* The kernel's own lines would stand among the test's. */
	write_file("/proc/sys/kernel/printk", "1");
	pid = fork();
	if (!pid) {
		execl("/iommufd", "iommufd", NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	printf("# iommufd: status %d\n", status);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
