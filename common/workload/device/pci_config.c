// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pci_config.h"

#define DEVICES "/sys/bus/pci/devices"
#define FUNCTIONS_MAX 32

static struct function {
	char bdf[16];
	ssize_t size;
	u8 config[PCI_CONFIG_MAX];
} functions[FUNCTIONS_MAX];
static unsigned int nr_functions;

/* How many bytes there are, of those from @from to @to. */
static ssize_t read_some(const char *bdf, size_t from, size_t to, u8 *config)
{
	char path[sizeof(DEVICES) + 32];
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), DEVICES "/%.16s/config", bdf);
	fd = must(sys(open(path, O_RDONLY | O_CLOEXEC)));
	size = must(sys(pread(fd, config, to - from, from)));
	close(fd);
	return size;
}

void pci_config_read(const char *bdf, size_t from, size_t to, u8 *config)
{
	must_be(read_some(bdf, from, to, config) == (ssize_t)(to - from),
		"the configuration of %s ends before %zu", bdf, to);
}

void pci_config_remember(void)
{
	DIR *dir = must_be_memory(opendir(DEVICES));
	struct dirent *entry;

	nr_functions = 0;
	while ((entry = readdir(dir))) {
		struct function *function = &functions[nr_functions];

		if (entry->d_name[0] == '.')
			continue;
		must_be(nr_functions < FUNCTIONS_MAX, "more than %d PCI functions", FUNCTIONS_MAX);
		snprintf(function->bdf, sizeof(function->bdf), "%.15s", entry->d_name);
		function->size = read_some(function->bdf, 0, PCI_CONFIG_MAX, function->config);
		nr_functions++;
	}
	closedir(dir);
}

/* "8 functions, 0 changed", or how many and the first byte that did. */
void pci_config_report_changed(const char *key)
{
	unsigned int changed = 0;
	char first[64] = "";

	for (unsigned int i = 0; i < nr_functions; i++) {
		const struct function *before = &functions[i];
		u8 now[PCI_CONFIG_MAX];

		pci_config_read(before->bdf, 0, before->size, now);
		for (ssize_t at = 0; at < before->size; at++) {
			if (now[at] == before->config[at])
				continue;
			if (!changed++)
				snprintf(first, sizeof(first), ": %.15s+0x%zx was 0x%02x is 0x%02x",
					 before->bdf, at, before->config[at], now[at]);
			break;
		}
	}
	fact(key, "%u functions, %u changed%s", nr_functions, changed, first);
}
