// SPDX-License-Identifier: GPL-2.0-only
/*
 * Of a kernel that is not ours: its own modules, which lie beside /init and are
 * loaded in the order of their names.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tasks.h"

#define FOLDER "/modules"

static int is_module(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int load(const char *name)
{
	char path[320];
	int fd, error = 0;

	snprintf(path, sizeof(path), FOLDER "/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

/* The errno of the first that cannot be loaded, which @failed names then; else 0. */
int load_modules(char *failed, size_t size)
{
	struct dirent **entries;
	int count = scandir(FOLDER, &entries, is_module, alphasort), error = 0;

	for (int i = 0; i < count && !error; i++) {
		error = load(entries[i]->d_name);
		if (error)
			snprintf(failed, size, "%s", entries[i]->d_name);
	}
	return error;
}
