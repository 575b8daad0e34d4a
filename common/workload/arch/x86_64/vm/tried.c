// SPDX-License-Identifier: GPL-2.0-only
/*
 * States that our guest is hardly ever in, or never, and that another one is in: in user mode, in
 * its NMI handler with interrupts just enabled, in the middle of an exception, halted. KVM has to
 * give them back as well. They are only tried, on either side, and the vCPU has its own again.
 */
#include <sys/ioctl.h>

#include "vm_state.h"

#define USER_DPL		3
#define PAGE_FAULT		14
#define PAGE_FAULT_CODE		7
/* Any that are canonical, and that no guest of ours has. */
#define BASE(n)			(0x5a0000001000ull + 0x111100ull * (n))

static void set_user_segment(struct kvm_segment *segment)
{
	segment->dpl = USER_DPL;
	segment->selector |= USER_DPL;
}

static struct vcpu_tried of_guest(const struct vcpu_state *own)
{
	return (struct vcpu_tried){
		.sregs = own->sregs,
		.events = own->events,
		.debugregs = own->debugregs,
		.mp_state = own->mp_state,
	};
}

static struct vcpu_tried of_another(const struct vcpu_state *own)
{
	struct vcpu_tried tried = of_guest(own);

	set_user_segment(&tried.sregs.cs);
	set_user_segment(&tried.sregs.ss);
	tried.sregs.fs.base = BASE(1);
	tried.sregs.gs.base = BASE(2);
	tried.sregs.cr2 = BASE(3);
	for (unsigned int i = 0; i < ARRAY_SIZE(tried.debugregs.db); i++)
		tried.debugregs.db[i] = BASE(4 + i);
	tried.events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
	tried.events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	tried.events.nmi.masked = 1;
	tried.events.exception.injected = 1;
	tried.events.exception.nr = PAGE_FAULT;
	tried.events.exception.has_error_code = 1;
	tried.events.exception.error_code = PAGE_FAULT_CODE;
	tried.mp_state.mp_state = KVM_MP_STATE_HALTED;
	return tried;
}

static void set(struct vcpu *vcpu, const struct vcpu_tried *tried)
{
	must(sys(ioctl(vcpu->fd, KVM_SET_SREGS2, &tried->sregs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &tried->events)));
	must(sys(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &tried->debugregs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_MP_STATE, &tried->mp_state)));
}

/* What KVM gives back of @tried. */
void vcpu_try(struct vcpu *vcpu, const struct vcpu_state *own, const struct vcpu_tried *tried,
	      struct vcpu_tried *read_back)
{
	struct vcpu_tried guest = of_guest(own);

	set(vcpu, tried);
	must(sys(ioctl(vcpu->fd, KVM_GET_SREGS2, &read_back->sregs)));
	must(sys(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &read_back->events)));
	must(sys(ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &read_back->debugregs)));
	must(sys(ioctl(vcpu->fd, KVM_GET_MP_STATE, &read_back->mp_state)));
	set(vcpu, &guest);
}

void vcpu_try_first(struct vcpu *vcpu, struct vcpu_state *state)
{
	struct vcpu_tried tried = of_another(state);

	vcpu_try(vcpu, state, &tried, &state->tried);
}

/* Where KVM forgets it, both sides are alike: what of it is not as it was set, or NULL. */
const char *vcpu_not_taken(const struct vcpu_state *state)
{
	const struct vcpu_tried *taken = &state->tried;

	if (taken->sregs.cs.dpl != USER_DPL || taken->sregs.ss.dpl != USER_DPL)
		return "user mode";
	if (taken->sregs.fs.base != BASE(1) || taken->sregs.gs.base != BASE(2))
		return "base of FS or GS";
	if (taken->sregs.cr2 != BASE(3))
		return "CR2";
	for (unsigned int i = 0; i < ARRAY_SIZE(taken->debugregs.db); i++)
		if (taken->debugregs.db[i] != BASE(4 + i))
			return "breakpoints";
	if (!taken->events.nmi.masked)
		return "nmi mask";
	if (!taken->events.interrupt.shadow)
		return "interrupt shadow";
	if (!taken->events.exception.injected || taken->events.exception.nr != PAGE_FAULT ||
	    taken->events.exception.error_code != PAGE_FAULT_CODE)
		return "exception";
	return taken->mp_state.mp_state == KVM_MP_STATE_HALTED ? NULL : "halted";
}
