// SPDX-License-Identifier: GPL-2.0-only
#include "aborted.h"
#include "pci_config.h"
#include "workload.h"

static long long pins_before;

static long long exact_pins(void)
{
	refresh_counters();
	return pinned_pages();
}

void aborted_remember(void)
{
	say_kho_tree();
	await("kho-unpreserved");
	pci_config_remember();
	pins_before = exact_pins();
}

void aborted_report(void)
{
	fact("aborts.pins", "%lld", exact_pins() - pins_before);
	pci_config_report_changed("aborts.config");
	await("kho-aborted");
}
