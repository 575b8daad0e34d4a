/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The rest of the FPU: x87 registers and control words, MXCSR, and the vector registers that no
 * step uses, in all their length. They are loaded once with values of this run, and looked at after
 * each sweep. Nothing else in the guest uses them.
 */
#ifndef GUEST_FPU_H
#define GUEST_FPU_H

/* Words of 64 bits in an XSAVE area in standard format: SDM vol. 1, 10.5.1, 13.4 */
#define FPU_MXCSR_WORD		3
#define FPU_ST_WORD		4
#define FPU_XMM_WORD		20
#define FPU_XSTATE_BV_WORD	64
#define FPU_YMM_HIGH_WORD	72
#define FPU_STACK		8

/* Registers 0 and 1 are scratch; 14 and 15 have their own check at each step. */
#define FPU_FIRST_VECTOR	2
#define FPU_LAST_VECTOR		13

/* Round towards zero in double precision, in SSE as well; all exceptions masked. */
#define FPU_CONTROL_WORD	0x0e7full
#define FPU_STATUS_C0_C3	0x4100ull
#define FPU_ALL_VALID		0xffull
#define FPU_CONTROL		(FPU_CONTROL_WORD | FPU_STATUS_C0_C3 << 16 | FPU_ALL_VALID << 32)
#define FPU_CONTROL_MASK	0xffffffffffull
#define FPU_MXCSR		0x7f80ull
#define FPU_MXCSR_MASK		0xffffffffull
#define FPU_INTEGER_BIT		BIT(63)
#define FPU_EXPONENT_MASK	0x7ffeull

/* XSAVE's and FXSAVE's masks have to be 0 where the CPU reserves them. */
static void fpu_load(const u64 *area)
{
	if (vcpu->vector_kind == GUEST_VECTOR_AVX)
		asm volatile("xrstor64 (%0)" : : "r"(area), "a"(XCR0_X87_SSE_AVX), "d"(0) : "memory");
	else
		asm volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
}

static void fpu_save(u64 *area)
{
	if (vcpu->vector_kind == GUEST_VECTOR_AVX)
		asm volatile("xsave64 (%0)" : : "r"(area), "a"(XCR0_X87_SSE_AVX), "d"(0) : "memory");
	else
		asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
}

/* What of a word is compared: none of the addresses of the last x87 instruction, for one. */
static u64 fpu_mask(unsigned int word)
{
	bool avx = vcpu->vector_kind == GUEST_VECTOR_AVX;

	if (word == 0)
		return FPU_CONTROL_MASK;
	if (word == FPU_MXCSR_WORD)
		return FPU_MXCSR_MASK;
	if (word >= FPU_ST_WORD && word < FPU_ST_WORD + 2 * FPU_STACK)
		return (word - FPU_ST_WORD) % 2 ? 0xffff : ~0ull;
	if (word >= FPU_XMM_WORD + 2 * FPU_FIRST_VECTOR &&
	    word < FPU_XMM_WORD + 2 * (FPU_LAST_VECTOR + 1))
		return ~0ull;
	if (avx && word >= FPU_YMM_HIGH_WORD + 2 * FPU_FIRST_VECTOR &&
	    word < FPU_YMM_HIGH_WORD + 2 * (FPU_LAST_VECTOR + 1))
		return ~0ull;
	return 0;
}

static u64 fpu_wanted(unsigned int word)
{
	if (word == 0)
		return FPU_CONTROL;
	if (word == FPU_MXCSR_WORD)
		return FPU_MXCSR;
	if (word == FPU_XSTATE_BV_WORD && vcpu->vector_kind == GUEST_VECTOR_AVX)
		return XCR0_X87_SSE_AVX;
	if (word >= FPU_ST_WORD && word < FPU_ST_WORD + 2 * FPU_STACK)
		return (word - FPU_ST_WORD) % 2 ? guest_fpu_value(vcpu, word) & FPU_EXPONENT_MASK :
						  guest_fpu_value(vcpu, word) | FPU_INTEGER_BIT;
	return guest_fpu_value(vcpu, word) & fpu_mask(word);
}

#endif
