// SPDX-License-Identifier: GPL-2.0-only
/* All state of a paused VM but its RAM: out of KVM, and into a new VM. */
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vm_state.h"

#define MSR_IA32_TSC		0x10

/* Registers of the LAPIC: SDM vol. 3, 12.4.1 */
#define LAPIC_TIMER_INITIAL	0x380
#define LAPIC_TIMER_CURRENT	0x390
/* ms: twenty periods */
#define TIMER_TRIES		200

#define TSC_SET_US		500
#define TSC_SET_TRIES		50

/* XSAVE, standard format: SDM vol. 1, 13.4 */
#define XSAVE_XMM		160
#define XSAVE_YMM_HIGH		576

u64 *vcpu_state_ymm(struct vcpu_state *vcpu, unsigned int number, bool upper)
{
	return (u64 *)(vcpu->xsave + (upper ? XSAVE_YMM_HIGH : XSAVE_XMM) + 16 * number);
}

void vcpu_state_vector(const struct vcpu_state *vcpu, struct guest_vector *vector)
{
	struct vcpu_state *state = (struct vcpu_state *)vcpu;

	for (int half = 0; half < 2; half++) {
		memcpy(vector->sum + 2 * half, vcpu_state_ymm(state, 15, half), 16);
		memcpy(vector->fold + 2 * half, vcpu_state_ymm(state, 14, half), 16);
	}
}

u64 vcpu_state_steps(const struct vcpu_state *vcpu)
{
	return vcpu->regs.r14;
}

u64 vcpu_state_checksum(const struct vcpu_state *vcpu)
{
	return vcpu->regs.r15;
}

u64 vcpu_state_counter_offset(const struct vcpu_state *vcpu)
{
	return vcpu->tsc_offset;
}

void vcpu_state_read_back(struct vcpu *vcpu, struct vcpu_state *state)
{
	must(sys(ioctl(vcpu->fd, KVM_GET_REGS, &state->regs)));
	must(sys(ioctl(vcpu->fd, KVM_GET_XSAVE2, state->xsave)));
}

static void capture_cpuid(struct vcpu *vcpu, struct vcpu_state *state)
{
	union {
		struct kvm_cpuid2 list;
		u8 space[sizeof(struct kvm_cpuid2) + sizeof(state->cpuid)];
	} cpuid = { .list.nent = VM_STATE_CPUID_ENTRIES };

	must(sys(ioctl(vcpu->fd, KVM_GET_CPUID2, &cpuid)));
	state->cpuid_entries = cpuid.list.nent;
	memcpy(state->cpuid, cpuid.list.entries, cpuid.list.nent * sizeof(state->cpuid[0]));
}

static void restore_cpuid(struct vcpu *vcpu, const struct vcpu_state *state)
{
	union {
		struct kvm_cpuid2 list;
		u8 space[sizeof(struct kvm_cpuid2) + sizeof(state->cpuid)];
	} cpuid = { .list.nent = state->cpuid_entries };

	memcpy(cpuid.list.entries, state->cpuid, sizeof(state->cpuid));
	must(sys(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid)));
}

union msr_list {
	struct kvm_msr_list list;
	u8 space[sizeof(struct kvm_msr_list) + VM_STATE_REGISTERS * sizeof(u32)];
};

union msr_values {
	struct kvm_msrs list;
	u8 space[sizeof(struct kvm_msrs) + VM_STATE_REGISTERS * sizeof(struct kvm_msr_entry)];
};

/* What KVM keeps and does not list: MTRRs; arch/x86/include/asm/msr-index.h, mtrr.h */
static const u32 unlisted_msrs[] = {
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
	0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
	0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff,
};

static void list_msrs(struct vmm *vmm, union msr_list *known)
{
	known->list.nmsrs = VM_STATE_REGISTERS - ARRAY_SIZE(unlisted_msrs);
	must(sys(ioctl(vmm->kvm_fd, KVM_GET_MSR_INDEX_LIST, known)));
	for (u32 i = 0; i < ARRAY_SIZE(unlisted_msrs); i++)
		known->list.indices[known->list.nmsrs++] = unlisted_msrs[i];
}

/*
 * KVM's list has MSRs that it will not read with this vCPU's CPUID.
 * KVM_GET_MSRS stops at the first of these; it is left out and the rest goes on.
 *
 * The TSC is not carried over as a value, which would be an old one when it is
 * written, but as the offset from the host's TSC, which runs through the kexec.
 */
static void capture_msrs(struct vmm *vmm, struct vcpu *vcpu, struct vcpu_state *state)
{
	static union msr_list known;
	static union msr_values values;
	u32 next = 0;

	list_msrs(vmm, &known);
	state->msrs = 0;
	while (next < known.list.nmsrs) {
		u32 asked = known.list.nmsrs - next;
		long got;

		for (u32 i = 0; i < asked; i++)
			values.list.entries[i].index = known.list.indices[next + i];
		values.list.nmsrs = asked;
		got = must(sys(ioctl(vcpu->fd, KVM_GET_MSRS, &values)));
		for (long i = 0; i < got; i++)
			if (values.list.entries[i].index != MSR_IA32_TSC)
				state->msr[state->msrs++] = values.list.entries[i];
		next += got + 1;
	}
}

static bool msr_has(const struct vcpu_state *state, u32 index, u64 value)
{
	for (u32 i = 0; i < state->msrs; i++)
		if (state->msr[i].index == index)
			return state->msr[i].data == value;
	return false;
}

/*
 * Only what differs from a new vCPU's is written: some MSRs are on KVM's list
 * to be read as 0, and writing even that to them is logged as a guest's error.
 */
static void restore_msrs(struct vmm *vmm, struct vcpu *vcpu, const struct vcpu_state *state,
			 struct refused_registers *refused)
{
	static struct vcpu_state fresh;
	static union msr_values one;

	capture_msrs(vmm, vcpu, &fresh);
	one.list.nmsrs = 1;
	for (u32 i = 0; i < state->msrs; i++) {
		one.list.entries[0] = state->msr[i];
		if (msr_has(&fresh, state->msr[i].index, state->msr[i].data) ||
		    must(sys(ioctl(vcpu->fd, KVM_SET_MSRS, &one))))
			continue;
		refused->id[refused->count++] = state->msr[i].index;
	}
}

void vcpu_capture(struct vmm *vmm, struct vcpu *vcpu, struct vcpu_state *state)
{
	capture_cpuid(vcpu, state);
	vcpu_tsc_offset(vcpu, KVM_GET_DEVICE_ATTR, &state->tsc_offset);
	must(sys(ioctl(vcpu->fd, KVM_GET_SREGS2, &state->sregs)));
	must(sys(ioctl(vcpu->fd, KVM_GET_LAPIC, &state->lapic)));
	must(sys(ioctl(vcpu->fd, KVM_GET_REGS, &state->regs)));
	must(sys(ioctl(vcpu->fd, KVM_GET_XCRS, &state->xcrs)));
	must(sys(ioctl(vcpu->fd, KVM_GET_XSAVE2, state->xsave)));
	capture_msrs(vmm, vcpu, state);
	must(sys(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &state->events)));
	must(sys(ioctl(vcpu->fd, KVM_GET_MP_STATE, &state->mp_state)));
	must(sys(ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &state->debugregs)));
}

/*
 * KVM reads the TSC and then the kernel's clock, by both of which it goes on from here where the
 * TSC is unstable (arch/x86/kvm/x86.c: kvm_arch_tsc_set_attr()). What lies between the two, the
 * guest's clock is behind for good: on a busy host the HPET alone can take 14 ms.
 */
static void set_tsc_offset(struct vcpu *vcpu, u64 offset)
{
	const u64 quick = counter_khz() * TSC_SET_US / 1000;
	u64 start, other = offset + 1;

	for (int tries = 0; tries < TSC_SET_TRIES; tries++) {
		/* Of the offset that it has already KVM keeps both readings: __kvm_synchronize_tsc() */
		if (tries)
			vcpu_tsc_offset(vcpu, KVM_SET_DEVICE_ATTR, &other);
		start = read_counter();
		vcpu_tsc_offset(vcpu, KVM_SET_DEVICE_ATTR, &offset);
		if (read_counter() - start < quick)
			break;
	}
}

/*
 * CPUID first, all else is checked against it. The APIC base (in sregs) before
 * the LAPIC, whose layout it decides. The LAPIC starts its timer when it is
 * set, so the TSC has to be right by then; an MSR (TSC_DEADLINE) may start it
 * anew, so the MSRs come after it.
 *
 * The TSC's rate is not carried over: the counter is the same one, though the
 * two kernels calibrate it to rates more than KVM's 250 ppm apart. The outgoing
 * kernel's rate would make the incoming one scale a TSC that needs no scaling.
 */
static void restore_vcpu(struct vmm *vmm, struct vcpu *vcpu, const struct vcpu_state *state,
			 struct refused_registers *refused)
{
	restore_cpuid(vcpu, state);
	set_tsc_offset(vcpu, state->tsc_offset);
	must(sys(ioctl(vcpu->fd, KVM_SET_SREGS2, &state->sregs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_LAPIC, &state->lapic)));
	must(sys(ioctl(vcpu->fd, KVM_SET_REGS, &state->regs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_XCRS, &state->xcrs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_XSAVE, state->xsave)));
	restore_msrs(vmm, vcpu, state, refused);
	must(sys(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &state->events)));
	must(sys(ioctl(vcpu->fd, KVM_SET_MP_STATE, &state->mp_state)));
	must(sys(ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &state->debugregs)));
}

void irqchips_capture(struct vmm *vmm, struct kvm_irqchip chips[NR_IRQCHIPS])
{
	for (u32 chip = 0; chip < NR_IRQCHIPS; chip++) {
		chips[chip].chip_id = chip;
		must(sys(ioctl(vmm->vm_fd, KVM_GET_IRQCHIP, &chips[chip])));
	}
}

static u32 lapic_word(const struct kvm_lapic_state *lapic, u32 at)
{
	u32 word;

	memcpy(&word, lapic->regs + at, sizeof(word));
	return word;
}

/*
 * How many timers KVM says have run out, and go on saying so: one that is due when the state is
 * captured is started again once the host gets to it, also while its vCPU is paused.
 */
static unsigned int timers_still(struct vmm *vmm, const struct vm_state *state)
{
	static struct kvm_lapic_state now;
	unsigned int still = 0;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		int tries = TIMER_TRIES;

		now = state->vcpu[i].lapic;
		while (lapic_word(&now, LAPIC_TIMER_INITIAL) &&
		       !lapic_word(&now, LAPIC_TIMER_CURRENT) && tries--) {
			usleep(1000);
			must(sys(ioctl(vmm->vcpus[i].fd, KVM_GET_LAPIC, &now)));
		}
		still += tries < 0;
	}
	return still;
}

void vm_capture(struct vmm *vmm, struct vm_state *state)
{
	long xsave_size = must(sys(ioctl(vmm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2)));

	must_be(xsave_size <= VM_STATE_XSAVE_SIZE, "KVM's XSAVE area has %ld bytes", xsave_size);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		vcpu_capture(vmm, &vmm->vcpus[i], &state->vcpu[i]);
		vcpu_try_first(&vmm->vcpus[i], &state->vcpu[i]);
	}
	irqchips_capture(vmm, state->devices.irqchip);
	fact("capture.timers_still", "%u", timers_still(vmm, state));
	leave_interrupts_pending(vmm, state);
	must(sys(ioctl(vmm->vm_fd, KVM_GET_CLOCK, &state->devices.clock)));
}

void vm_restore(struct vmm *vmm, const struct vm_state *state, struct refused_registers *refused)
{
	struct kvm_clock_data clock = { .clock = state->devices.clock.clock };
	u64 began = read_counter();

	must(sys(ioctl(vmm->vm_fd, KVM_SET_CLOCK, &clock)));
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		restore_vcpu(vmm, &vmm->vcpus[i], &state->vcpu[i], refused);
	/* After the LAPICs: what waits in the IOAPIC is sent to them at once. */
	for (u32 chip = 0; chip < NR_IRQCHIPS && !param_control("state-left-out"); chip++)
		must(sys(ioctl(vmm->vm_fd, KVM_SET_IRQCHIP, &state->devices.irqchip[chip])));
	report_unlike(vmm, state, refused, began);
}
