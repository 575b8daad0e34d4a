/* SPDX-License-Identifier: GPL-2.0-only */
/* What is said about memory: where it is, how much of it is pinned, and that nobody wrote to it. */
#ifndef EVIDENCE_H
#define EVIDENCE_H

#include "nic.h"

u64 digest_pfns(const struct nic *nic);
void report_place(const struct nic *nic, const char *when);
void report_pins(const char *when);
void report_iommu_pages(const char *when);
void report_secondary_pages(const char *when);
void report_fault_interrupts(const char *when);

int hog_start(void);
bool hog_goes_on(int pid);

void canary_new(struct nic *nic);
void canary_check(const struct nic *nic);
void unmap_some_descriptors(const struct nic *nic);

#endif
