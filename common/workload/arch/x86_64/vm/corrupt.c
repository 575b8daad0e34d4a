// SPDX-License-Identifier: GPL-2.0-only
/* What stage 1's controls do to the state that is restored. */
#include "vm_state.h"

/* arch/x86/include/asm/msr-index.h; and a number that no CPU has. */
#define MSR_STAR 0xc0000081
#define MSR_NONE 0x0badc0de

static struct kvm_msr_entry *find_msr(struct vcpu_state *state, u32 index)
{
	u32 at = 0;

	while (at < state->msrs && state->msr[at].index != index)
		at++;
	must_be(at < state->msrs, "MSR 0x%x is not in the state", index);
	return &state->msr[at];
}

void corrupt_state(struct vm_state *state)
{
	struct vcpu_state *first = &state->vcpu[0];
	/* XCR0 and XSTATE_BV bit 2: is there an upper half of ymm15 to corrupt? */
	bool upper = first->xcrs.xcrs[0].value & BIT(2);

	if (param_control("register-corrupted"))
		first->regs.r15 ^= 1ull << 40;
	if (param_control("vector-corrupted"))
		vcpu_state_ymm(first, 15, upper)[1] ^= 1ull << 40;
	if (param_control("counter-corrupted"))
		first->regs.r14++;
	if (param_control("msr-corrupted"))
		find_msr(first, MSR_STAR)->data ^= BIT(0);
	if (param_control("msr-unknown"))
		find_msr(first, MSR_STAR)->index = MSR_NONE;
	/* LVT timer, mask bit */
	if (param_control("timer-dropped"))
		first->lapic.regs[0x320 + 2] |= BIT(0);
	/* LVT timer's divider: 2 instead of 1 */
	if (param_control("timer-halved"))
		first->lapic.regs[0x3e0] = 0;
	/* As if no time had passed since the pause. */
	if (param_control("tsc-frozen"))
		for (unsigned int i = 0; i < state->nr_vcpus; i++)
			state->vcpu[i].tsc_offset -= read_counter() - state->paused_at;
}
