// SPDX-License-Identifier: GPL-2.0-only
#include "aborted.h"
#include "pci_config.h"
#include "workload.h"

static long long pins_before, tables_before;

void aborted_remember(void)
{
	say_kho_tree();
	await("kho-unpreserved");
	pci_config_remember();
	refresh_counters();
	pins_before = pinned_pages();
	tables_before = iommu_pages();
}

void aborted_report(void)
{
	refresh_counters();
	fact("aborts.pins", "%lld", pinned_pages() - pins_before);
	fact("aborts.iommu_pages", "%lld", iommu_pages() - tables_before);
	pci_config_report_changed("aborts.config");
	await("kho-aborted");
}
