// SPDX-License-Identifier: GPL-2.0-only
/*
 * A vCPU is seldom paused while an interrupt is on its way, and that is state as well. So each is
 * given three when it is captured: one that waits in its LAPIC, one that KVM has begun to deliver,
 * and an NMI; and the first one a fourth, which waits in the IOAPIC. After the restore the guest
 * has to get each of them, once.
 */
#include <sys/ioctl.h>

#include "vm_state.h"

/* guest_arch.h */
#define PENDING_VECTOR	0x51
#define INJECTED_VECTOR	0x52
#define ROUTED_VECTOR	0x53

/* Of the IOAPIC: no device of the VM has it. */
#define ROUTED_PIN	20

/* Registers of the LAPIC: SDM vol. 3, 12.4.1 */
#define LAPIC_ISR	0x100
#define LAPIC_IRR	0x200

/* Something is under way to the vCPU, or it must not be interrupted. */
static bool busy(const struct kvm_vcpu_events *events)
{
	return events->interrupt.injected || events->exception.injected ||
	       events->exception.pending || events->interrupt.shadow || events->nmi.injected;
}

bool arch_vcpu_interruptible(const struct vcpu *vcpu)
{
	struct kvm_vcpu_events events;

	must(sys(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events)));
	return !busy(&events);
}

static void set_vector(struct vcpu_state *state, unsigned int registers, unsigned int vector)
{
	*(u32 *)(state->lapic.regs + registers + vector / 32 * 16) |= BIT(vector % 32);
}

static bool set_pending(struct vcpu *vcpu, struct vcpu_state *state)
{
	struct kvm_vcpu_events *events = &state->events;

	if (busy(events))
		return false;
	events->interrupt.injected = 1;
	events->interrupt.nr = INJECTED_VECTOR;
	set_vector(state, LAPIC_ISR, INJECTED_VECTOR);
	state->injected = vcpu->block->injected + 1;
	set_vector(state, LAPIC_IRR, PENDING_VECTOR);
	state->pending = vcpu->block->pending + 1;
	events->flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
	events->nmi.pending = 1;
	state->nmis = vcpu->block->nmis + 1;
	return true;
}

/* An edge that nobody was told of, as if the pin had been unmasked meanwhile. */
static void set_routed(struct vmm *vmm, struct vm_state *state)
{
	struct kvm_ioapic_state *ioapic = &state->devices.irqchip[KVM_IRQCHIP_IOAPIC].chip.ioapic;

	ioapic->redirtbl[ROUTED_PIN].bits = 0;
	ioapic->redirtbl[ROUTED_PIN].fields.vector = ROUTED_VECTOR;
	ioapic->irr |= BIT(ROUTED_PIN);
	state->vcpu[0].routed = vmm->vcpus[0].block->routed + 1;
}

void leave_interrupts_pending(struct vmm *vmm, struct vm_state *state)
{
	unsigned int left = 0;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		state->vcpu[i].routed = vmm->vcpus[i].block->routed;
		state->vcpu[i].pending = vmm->vcpus[i].block->pending;
		state->vcpu[i].injected = vmm->vcpus[i].block->injected;
		state->vcpu[i].nmis = vmm->vcpus[i].block->nmis;
		left += set_pending(&vmm->vcpus[i], &state->vcpu[i]);
	}
	set_routed(vmm, state);
	fact("capture.vcpus_interrupted", "%u", left);
}

static void compare(u64 got, u64 due, u64 *lost, u64 *twice)
{
	if (got < due)
		*lost += due - got;
	else
		*twice += got - due;
}

/* How many of them did not come, how many came once more than was due, and how many cannot end. */
void report_pending(const struct vmm *vmm, const struct vm_state *state)
{
	u64 lost = 0, twice = 0, unended = 0;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		const struct guest_vcpu *block = vmm->vcpus[i].block;

		compare(READ_ONCE(block->pending), state->vcpu[i].pending, &lost, &twice);
		compare(READ_ONCE(block->injected), state->vcpu[i].injected, &lost, &twice);
		compare(READ_ONCE(block->routed), state->vcpu[i].routed, &lost, &twice);
		compare(READ_ONCE(block->nmis), state->vcpu[i].nmis, &lost, &twice);
		unended += READ_ONCE(block->unended);
	}
	fact("guest.interrupts_lost", "%llu", lost);
	fact("guest.interrupts_twice", "%llu", twice);
	fact("guest.interrupts_unended", "%llu", unended);
}
