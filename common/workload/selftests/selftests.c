// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs the programs in /tests, one after the other. What they say goes out on
 * the dialogue's line, where no message of the kernel gets in between.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workload.h"

static void __noreturn run(const char *path)
{
	int tty = must(sys(open("/dev/ttyS1", O_WRONLY | O_NOCTTY)));

	must(sys(dup2(tty, STDOUT_FILENO)));
	must(sys(dup2(tty, STDERR_FILENO)));
	execl(path, path, NULL);
	bail("%s: %s", path, errno_name(-errno));
}

static int is_program(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int run_all(void)
{
	struct dirent **programs;
	int count, status;

	count = must(sys(scandir("/tests", &programs, is_program, alphasort)));
	for (int i = 0; i < count; i++) {
		char path[300];
		pid_t pid;

		snprintf(path, sizeof(path), "/tests/%s", programs[i]->d_name);
		fact("program", "%s", programs[i]->d_name);
		pid = must(sys(fork()));
		if (!pid)
			run(path);
		must(sys(waitpid(pid, &status, 0)));
		fact(WIFSIGNALED(status) ? "signal" : "exit", "%d",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	return 0;
}

const struct stage_ops stage = {
	.before_kexec = run_all,
};
