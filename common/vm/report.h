/* SPDX-License-Identifier: GPL-2.0-only */
/* What was measured, as facts. */
#ifndef REPORT_H
#define REPORT_H

#include "vm_state.h"

void report_guest_options(const struct vmm *vmm);
void report_ram_digest(const u64 *digests, u64 pages);
u64 count_different(const u64 *before, const u64 *after, u64 count);
void report_ram_difference(const u64 *before, const u64 *after, u64 pages);
void report_pfns(const u64 *pfns, u64 pages);
void report_pfn_difference(const u64 *before, const u64 *after, u64 pages);
u64 report_guest_errors(const struct vcpu *vcpu);
void report_paused_guest(const struct vmm *vmm, const struct vm_state *state);
void report_loaded_guest(struct vmm *vmm);
void report_refused_msrs(const struct refused_msrs *refused);
void report_resumed_guest(struct vmm *vmm, const struct vm_state *state,
			  const u64 *at_resume, const u64 *at_finish, const u64 *at_end);

#endif
