/* SPDX-License-Identifier: GPL-2.0-only */
/* What was measured, as facts. */
#ifndef REPORT_H
#define REPORT_H

#include "vm_state.h"

void report_guest_options(const struct vmm *vmm);
u64 report_guest_errors(const struct vcpu *vcpu);
void report_paused_guest(const struct vmm *vmm, const struct vm_state *state);
void report_loaded_guest(struct vmm *vmm);
void report_refused_registers(const struct refused_registers *refused);
void report_resumed_guest(struct vmm *vmm, const struct vm_state *state,
			  const u64 *at_resume, const u64 *at_finish, const u64 *at_end);

#endif
