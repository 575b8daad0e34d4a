// SPDX-License-Identifier: GPL-2.0-only
/* What stage 1's controls do to the state that is restored. */
#include "vm_state.h"

#define TPIDR_EL0 ARM64_SYS_REG(3, 3, 13, 0, 2)
/* A system register that no CPU has. */
#define NO_REGISTER ARM64_SYS_REG(2, 7, 15, 15, 7)
#define TIMER_IMASK BIT(1)

static u64 *must_find(struct vcpu_state *vcpu, u64 id)
{
	u64 *value = vcpu_state_register(vcpu, id);

	must_be(value, "register 0x%llx is not in the state", id);
	return value;
}

static void rename_register(struct vcpu_state *vcpu, u64 id, u64 other)
{
	must_find(vcpu, id);
	for (u32 i = 0; i < vcpu->registers; i++)
		if (vcpu->id[i] == id)
			vcpu->id[i] = other;
}

void corrupt_state(struct vm_state *state)
{
	struct vcpu_state *first = &state->vcpu[0];

	if (param_control("register-corrupted"))
		*must_find(first, GUEST_CHECKSUM_REGISTER) ^= 1ull << 40;
	if (param_control("vector-corrupted"))
		((u64 *)vcpu_state_vreg(first, 31))[1] ^= 1ull << 40;
	if (param_control("counter-corrupted"))
		*must_find(first, GUEST_COUNTER_REGISTER) += 1;
	if (param_control("msr-corrupted"))
		*must_find(first, TPIDR_EL0) ^= BIT(0);
	if (param_control("msr-unknown"))
		rename_register(first, TPIDR_EL0, NO_REGISTER);
	if (param_control("timer-dropped"))
		*must_find(first, KVM_REG_ARM_TIMER_CTL) |= TIMER_IMASK;
	/* As if no time had passed since the pause. */
	if (param_control("tsc-frozen"))
		for (unsigned int i = 0; i < state->nr_vcpus; i++)
			state->vcpu[i].counter_offset -= read_counter() - state->paused_at;
}
