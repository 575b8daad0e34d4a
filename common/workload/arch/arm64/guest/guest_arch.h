/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest on arm64. x19 to x22 and v30/v31 belong to it for its whole life: what includes this is
 * built with -ffixed-x19..x22 and -mgeneral-regs-only.
 */
#ifndef GUEST_ARCH_H
#define GUEST_ARCH_H

#include "guest_map.h"

register struct guest_vcpu *vcpu asm("x19");
register u64 cursor asm("x20");
register u64 counter asm("x21");
register u64 checksum asm("x22");

/* Numbers of the registers, as errors give them. */
#define REGISTER_VCPU		19
#define REGISTER_CURSOR		20
#define REGISTER_COUNTER	21
#define REGISTER_CHECKSUM	22

/* GICv3; where KVM puts the guest's timer is INTID 27. */
#define TIMER_INTID		27
#define SPURIOUS_INTID		1020
#define GICD_CTLR		0x0000
#define GICD_CTLR_ARE_GRP1	(BIT(4) | BIT(1))
#define GICR_WAKER		0x0014
#define GICR_WAKER_ASLEEP	BIT(2)
#define GICR_IGROUPR0		0x10080
#define GICR_ISENABLER0		0x10100
#define GICR_IPRIORITYR		0x10400

#define TICKS_PER_SECOND	100

#define read_sysreg(name)						\
({									\
	u64 __value;							\
									\
	asm volatile("mrs %0, " #name : "=r"(__value) : : "memory");	\
	__value;							\
})

#define write_sysreg(name, value)					\
	asm volatile("msr " #name ", %0\n\tisb" : : "r"((u64)(value)) : "memory")

/* The block that the stack is in: a handler must not trust what the test is to find broken. */
static inline struct guest_vcpu *this_vcpu(void)
{
	u64 sp;

	asm volatile("mov %0, sp" : "=r"(sp));
	return (struct guest_vcpu *)(sp & ~(u64)(GUEST_VCPU_SIZE - 1));
}

static inline void start_this_vcpu(struct guest_vcpu *block)
{
	(void)block;
}

/* Called by the vectors in guest_entry.S. */
void guest_interrupt(void);
void __noreturn guest_fault(void);

void guest_interrupt(void)
{
	struct guest_vcpu *self = this_vcpu();
	u64 intid = read_sysreg(icc_iar1_el1);

	if (intid >= SPURIOUS_INTID)
		return;
	if (intid == TIMER_INTID) {
		write_sysreg(cntv_tval_el0, counter_hz() / TICKS_PER_SECOND);
		WRITE_ONCE(self->tickless, 0);
		WRITE_ONCE(self->ticks, self->ticks + 1);
	} else {
		WRITE_ONCE(self->errors[GUEST_ERROR_TIMER],
			   self->errors[GUEST_ERROR_TIMER] + 1);
	}
	write_sysreg(icc_eoir1_el1, intid);
}

void guest_fault(void)
{
	struct guest_vcpu *self = this_vcpu();

	self->fault_rip = read_sysreg(elr_el1);
	self->fault_code = read_sysreg(esr_el1);
	WRITE_ONCE(self->fault, 1);
	for (;;)
		asm volatile("wfi");
}

static inline u32 gic_read(u64 address)
{
	u32 value;

	asm volatile("ldr %w0, [%1]" : "=r"(value) : "r"(GUEST_DEVICES + address) : "memory");
	return value;
}

static inline void gic_write(u64 address, u32 value)
{
	asm volatile("str %w0, [%1]" : : "r"(value), "r"(GUEST_DEVICES + address) : "memory");
}

extern const u8 guest_vectors[];

static void start_interrupts(void)
{
	u64 redistributor = GUEST_GICR + vcpu->id * GUEST_GICR_SIZE;

	write_sysreg(vbar_el1, (u64)guest_vectors);
	gic_write(GUEST_GICD + GICD_CTLR, GICD_CTLR_ARE_GRP1);
	gic_write(redistributor + GICR_WAKER, 0);
	while (gic_read(redistributor + GICR_WAKER) & GICR_WAKER_ASLEEP)
		;
	gic_write(redistributor + GICR_IGROUPR0, ~0u);
	gic_write(redistributor + GICR_IPRIORITYR + (TIMER_INTID & ~3u), 0x80808080);
	gic_write(redistributor + GICR_ISENABLER0, BIT(TIMER_INTID));
	/* SRE, and no bypass */
	write_sysreg(icc_sre_el1, 7);
	write_sysreg(icc_pmr_el1, 0xff);
	write_sysreg(icc_igrpen1_el1, 1);
	write_sysreg(cntv_tval_el0, counter_hz() / TICKS_PER_SECOND);
	write_sysreg(cntv_ctl_el0, 1);
	asm volatile("msr daifclr, #2" : : : "memory");
}

/* Vector registers: v31 is the sum, v30 its fold, v0/v1 are scratch. */

#define SIMD ".arch_extension simd\n\t"

static void read_vector(struct guest_vector *vector)
{
	asm volatile(SIMD "str q31, [%0]\n\tstr q30, [%1]"
		     : : "r"(vector->sum), "r"(vector->fold) : "memory");
}

static void write_vector(const struct guest_vector *vector)
{
	asm volatile(SIMD "ldr q31, [%0]\n\tldr q30, [%1]"
		     : : "r"(vector->sum), "r"(vector->fold) : "memory");
}

static void start_vector(void)
{
	vcpu->vector_kind = GUEST_VECTOR_NEON;
	asm volatile(SIMD "movi v31.2d, #0\n\tmovi v30.2d, #0");
}

struct lanes {
	u64 lane[2];
};

/* sum = rotate(sum, 7) + input; fold ^= sum; in each lane */
static void fold_vector_registers(const struct lanes *input)
{
	asm volatile(SIMD
		     "ldr q0, [%0]\n\t"
		     "shl v1.2d, v31.2d, #7\n\t"
		     "ushr v31.2d, v31.2d, #57\n\t"
		     "orr v31.16b, v31.16b, v1.16b\n\t"
		     "add v31.2d, v31.2d, v0.2d\n\t"
		     "eor v30.16b, v30.16b, v31.16b"
		     : : "r"(input) : "memory");
}

static int vector_lanes(void)
{
	return 2;
}

/*
 * System registers that nothing but the guest writes: numbers as in an MSR or MRS instruction.
 * DBGBCRn stay as they are at reset, so that the addresses are never acted upon.
 */
#define SYSREG(op0, op1, crn, crm, op2) \
	((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))

#define SPECIALS(of)								\
	of(0, tpidr_el0, SYSREG(3, 3, 13, 0, 2), ~0ull)				\
	of(1, tpidrro_el0, SYSREG(3, 3, 13, 0, 3), ~0ull)			\
	of(2, tpidr_el1, SYSREG(3, 0, 13, 0, 4), ~0ull)				\
	of(3, contextidr_el1, SYSREG(3, 0, 13, 0, 1), 0xffffffffull)		\
	of(4, far_el1, SYSREG(3, 0, 6, 0, 0), ~0ull)				\
	of(5, sp_el0, SYSREG(3, 0, 4, 1, 0), ~0ull)				\
	of(6, dbgbvr0_el1, SYSREG(2, 0, 0, 0, 4), 0x0000fffffffffffcull)	\
	of(7, dbgbvr1_el1, SYSREG(2, 0, 0, 1, 4), 0x0000fffffffffffcull)

#define NR_SPECIALS 8

#define SPECIAL_NUMBER(index, name, number, mask) [index] = number,
#define SPECIAL_MASK(index, name, number, mask) [index] = mask,
#define SPECIAL_READ(index, name, number, mask) \
	case index: \
		return read_sysreg(name);
#define SPECIAL_WRITE(index, name, number, mask) \
	case index: \
		write_sysreg(name, value); \
		break;

/* What the CPU is, by its identification registers. */
static __cold u64 cpu_identity(void)
{
	u64 digest = guest_mix(read_sysreg(midr_el1));

	digest = guest_mix(digest ^ read_sysreg(mpidr_el1));
	digest = guest_mix(digest ^ read_sysreg(ctr_el0));
	digest = guest_mix(digest ^ read_sysreg(dczid_el0));
	digest = guest_mix(digest ^ read_sysreg(id_aa64pfr0_el1));
	digest = guest_mix(digest ^ read_sysreg(id_aa64isar0_el1));
	digest = guest_mix(digest ^ read_sysreg(id_aa64isar1_el1));
	digest = guest_mix(digest ^ read_sysreg(id_aa64mmfr0_el1));
	return guest_mix(digest ^ read_sysreg(id_aa64mmfr1_el1));
}

/* Counts down with the counter, by definition. */
static u64 timer_count(void)
{
	return read_sysreg(cntv_tval_el0);
}

static u64 timer_period(void)
{
	return counter_hz() / TICKS_PER_SECOND;
}

/* What a debugger needs (DBGBVR, DBGBCR, MDSCR_EL1) is not tried. */
static bool breakpoint_hits(void)
{
	return true;
}

static u64 count_specials(void)
{
	return NR_SPECIALS;
}

/* Of all of them every bit under the mask may have either value. */
static u64 special_bits(int index)
{
	(void)index;
	return 0;
}

static u64 special_number(int index)
{
	static const u16 numbers[NR_SPECIALS] = { SPECIALS(SPECIAL_NUMBER) };

	return numbers[index];
}

static u64 special_mask(int index)
{
	static const u64 masks[NR_SPECIALS] = { SPECIALS(SPECIAL_MASK) };

	return masks[index];
}

static u64 read_special(int index)
{
	switch (index) {
	SPECIALS(SPECIAL_READ)
	}
	return 0;
}

/* Each is used by the name by which it is read. */
static u64 use_special(int index, u64 seen)
{
	(void)index;
	return seen;
}

static void write_special(int index, u64 value)
{
	switch (index) {
	SPECIALS(SPECIAL_WRITE)
	}
}

#endif
