// SPDX-License-Identifier: GPL-2.0-only
/* What has to be the same on both sides of the kexec, read from where it is. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <linux/pci_regs.h>

#include "igb.h"

#define PORT "0000:00:02.0"
#define HEAD_LOOKS 5

static void report_config(const char *bdf, const char *key)
{
	char path[128], text[2 * PCI_STD_HEADER_SIZEOF + 1];
	u8 header[PCI_STD_HEADER_SIZEOF];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", bdf);
	fd = must(sys(open(path, O_RDONLY | O_CLOEXEC)));
	must(sys(read(fd, header, sizeof(header))));
	close(fd);
	for (size_t i = 0; i < sizeof(header); i++)
		sprintf(text + 2 * i, "%02x", header[i]);
	fact(key, "%s", text);
}

/*
 * The head, and when it was read: on a busy host the line may come much later,
 * and this CPU may be kept waiting between the two as well.
 */
static void report_head(const struct igb *igb)
{
	u64 before, after, best = ~0ULL, when = 0;
	u32 head = 0;

	for (int i = 0; i < HEAD_LOOKS; i++) {
		u32 seen;

		before = rdtsc();
		seen = igb_rx_head(igb);
		after = rdtsc();
		if (after - before < best) {
			best = after - before;
			when = before;
			head = seen;
		}
	}
	fact("device.head", "%u", head);
	fact_tsc("head", when);
}

/* Facts device.* and port.config; the device sits behind the first port. */
void igb_report(const struct igb *igb, const char *bdf)
{
	struct igb_ring_state state;

	igb_ring_state(igb, &state);
	fact("device.bdf", "%s", bdf);
	fact("device.registers",
	     "rdbal=%08x rdbah=%08x rdlen=%08x rctl=%08x rxdctl=%08x srrctl=%08x scratch=%08x",
	     state.rdbal, state.rdbah, state.rdlen, state.rctl, state.rxdctl, state.srrctl,
	     state.scratch);
	report_head(igb);
	fact("device.tail", "%u", igb_rx_tail(igb));
	report_config(bdf, "device.config");
	report_config(PORT, "port.config");
}
