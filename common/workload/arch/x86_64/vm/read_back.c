// SPDX-License-Identifier: GPL-2.0-only
/* All state of a restored VM, read from KVM before the guest runs, and compared with what it was. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vm_state.h"

/* Registers of the LAPIC: SDM vol. 3, 12.4.1 */
#define LAPIC_PPR		0x0a0
#define LAPIC_IRR		0x200
#define LAPIC_IRR_END		0x280
#define LAPIC_TIMER_CURRENT	0x390

/* XSAVE: what the CPU or KVM says of the area itself; SDM vol. 1, 10.5.1, 13.4 */
#define XSAVE_SOFTWARE		464
#define XSAVE_EXTENDED		576

/* These count: Hyper-V's runtime of a CPU and its reference time. */
#define HV_X64_MSR_VP_RUNTIME		0x40000010
#define HV_X64_MSR_TIME_REF_COUNT	0x40000020

/*
 * On KVM's list since long: TSC_ADJUST, SYSENTER_CS, _ESP, _EIP, MISC_ENABLE, PAT, TSC_DEADLINE,
 * STAR, LSTAR, CSTAR, SYSCALL_MASK, KERNEL_GS_BASE, TSC_AUX, kvm-clock's two and steal time's.
 */
static const u32 needed_msrs[] = {
	0x3b, 0x174, 0x175, 0x176, 0x1a0, 0x277, 0x6e0,
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102,
	0x4b564d00, 0x4b564d01, 0x4b564d03,
};

struct unlike {
	u32 count;
	char first[48];
};

static void note(struct unlike *unlike, const char *what, u32 where)
{
	if (!unlike->count++)
		snprintf(unlike->first, sizeof(unlike->first), " %s 0x%x", what, where);
}

/* Byte by byte from @from to @end of both. */
static void compare(struct unlike *unlike, const char *what, const void *wanted,
		    const void *loaded, u32 from, u32 end)
{
	const u8 *one = wanted, *other = loaded;

	for (u32 at = from; at < end; at++)
		if (one[at] != other[at])
			note(unlike, what, at);
}

#define COMPARE(unlike, wanted, loaded, member) \
	compare(unlike, #member, &(wanted)->member, &(loaded)->member, 0, sizeof((wanted)->member))

/*
 * An interrupt may have come since; none may be lost. The timer counts as soon as it is set. The
 * processor priority follows from TPR and ISR, which are compared; KVM computes it before it has
 * counted the ISR it was given, and again before it delivers (docs/findings/kvm-stale-ppr.md).
 */
static void compare_lapic(struct unlike *unlike, const struct kvm_lapic_state *wanted,
			  const struct kvm_lapic_state *loaded)
{
	for (u32 at = 0; at < sizeof(wanted->regs); at++) {
		bool lost = wanted->regs[at] & ~loaded->regs[at];

		if (at / 4 == LAPIC_TIMER_CURRENT / 4 || at / 4 == LAPIC_PPR / 4)
			continue;
		if (at >= LAPIC_IRR && at < LAPIC_IRR_END ? lost :
							    wanted->regs[at] != loaded->regs[at])
			note(unlike, "lapic", at);
	}
}

/* What a VMM does not get to know of, it cannot carry over; and what nobody uses is zero. */
static void check_complete(struct unlike *unlike, const struct vcpu_state *state)
{
	const struct kvm_debugregs *debugregs = &state->debugregs;

	for (u32 i = 0; i < ARRAY_SIZE(needed_msrs); i++) {
		u32 at = 0;

		while (at < state->msrs && state->msr[at].index != needed_msrs[i])
			at++;
		if (at == state->msrs)
			note(unlike, "unlisted msr", needed_msrs[i]);
	}
	if (vcpu_not_taken(state))
		note(unlike, vcpu_not_taken(state), 0);
	for (u32 i = 0; i < ARRAY_SIZE(debugregs->reserved); i++)
		if (debugregs->reserved[i])
			note(unlike, "reserved of debugregs", i);
}

static bool was_refused(const struct refused_registers *refused, u32 index)
{
	for (u32 i = 0; i < refused->count; i++)
		if (refused->id[i] == index)
			return true;
	return false;
}

static void compare_msrs(struct unlike *unlike, const struct vcpu_state *wanted,
			 const struct vcpu_state *loaded, const struct refused_registers *refused)
{
	for (u32 i = 0; i < wanted->msrs; i++) {
		u32 index = wanted->msr[i].index, at = 0;

		if (index == HV_X64_MSR_VP_RUNTIME || index == HV_X64_MSR_TIME_REF_COUNT ||
		    was_refused(refused, index))
			continue;
		while (at < loaded->msrs && loaded->msr[at].index != index)
			at++;
		if (at == loaded->msrs || loaded->msr[at].data != wanted->msr[i].data)
			note(unlike, "msr", index);
	}
}

static void compare_vcpu(struct unlike *unlike, const struct vcpu_state *wanted,
			 const struct vcpu_state *loaded, const struct refused_registers *refused)
{
	COMPARE(unlike, wanted, loaded, regs);
	COMPARE(unlike, wanted, loaded, sregs);
	COMPARE(unlike, wanted, loaded, xcrs);
	COMPARE(unlike, wanted, loaded, events);
	COMPARE(unlike, wanted, loaded, tried.sregs);
	COMPARE(unlike, wanted, loaded, tried.events);
	COMPARE(unlike, wanted, loaded, tried.debugregs);
	COMPARE(unlike, wanted, loaded, tried.mp_state);
	COMPARE(unlike, wanted, loaded, debugregs);
	COMPARE(unlike, wanted, loaded, mp_state);
	COMPARE(unlike, wanted, loaded, cpuid_entries);
	COMPARE(unlike, wanted, loaded, cpuid);
	compare(unlike, "xsave", wanted->xsave, loaded->xsave, 0, XSAVE_SOFTWARE);
	compare(unlike, "xsave", wanted->xsave, loaded->xsave, XSAVE_EXTENDED,
		sizeof(wanted->xsave));
	compare_lapic(unlike, &wanted->lapic, &loaded->lapic);
	compare_msrs(unlike, wanted, loaded, refused);
}

/*
 * Each byte or MSR that is not as it was; the first is named. KVM's clock goes on, and is not
 * compared. @began: the machine's counter before anything was restored
 */
void report_unlike(struct vmm *vmm, const struct vm_state *state,
		   const struct refused_registers *refused, u64 began)
{
	static struct vcpu_state loaded[GUEST_MAX_VCPUS];
	static struct kvm_irqchip chips[NR_IRQCHIPS];
	struct unlike unlike = {};

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		vcpu_try(&vmm->vcpus[i], &state->vcpu[i], &state->vcpu[i].tried, &loaded[i].tried);
		vcpu_capture(vmm, &vmm->vcpus[i], &loaded[i]);
		compare_vcpu(&unlike, &state->vcpu[i], &loaded[i], refused);
		check_complete(&unlike, &state->vcpu[i]);
		/* Where the TSC is unstable, KVM stops the guest's while a vCPU does not run. */
		if (state->vcpu[i].tsc_offset - loaded[i].tsc_offset > read_counter() - began)
			note(&unlike, "tsc_offset of vCPU", i);
	}
	irqchips_capture(vmm, chips);
	/* What waited there has been sent on: the guest counts it. */
	chips[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr =
		state->devices.irqchip[KVM_IRQCHIP_IOAPIC].chip.ioapic.irr;
	for (u32 chip = 0; chip < NR_IRQCHIPS; chip++)
		compare(&unlike, "irqchip", &state->devices.irqchip[chip].chip,
			&chips[chip].chip, 0, sizeof(chips[chip].chip));
	fact("restore.state_unlike", "%u%s", unlike.count, unlike.first);
}
