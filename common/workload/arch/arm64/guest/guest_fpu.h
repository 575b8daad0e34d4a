/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The vector registers that no step uses, and FPCR. They are loaded once with values of this run,
 * and looked at after each sweep. Nothing else in the guest uses them.
 */
#ifndef GUEST_FPU_H
#define GUEST_FPU_H

/* v0 and v1 are scratch; v30 and v31 have their own check at each step. */
#define FPU_VECTORS		28
#define FPU_CONTROL_WORD	(2 * FPU_VECTORS)
/* Round towards zero, flush denormals to zero. */
#define FPU_CONTROL		0x1c00000ull

#define FPU_PAIRS(of) \
	of(2, 3, 0) of(4, 5, 32) of(6, 7, 64) of(8, 9, 96) of(10, 11, 128) of(12, 13, 160) \
	of(14, 15, 192) of(16, 17, 224) of(18, 19, 256) of(20, 21, 288) of(22, 23, 320) \
	of(24, 25, 352) of(26, 27, 384) of(28, 29, 416)
#define FPU_LOAD(one, other, at)  "ldp q" #one ", q" #other ", [%0, #" #at "]\n\t"
#define FPU_STORE(one, other, at) "stp q" #one ", q" #other ", [%0, #" #at "]\n\t"

static void fpu_load(const u64 *area)
{
	asm volatile(SIMD FPU_PAIRS(FPU_LOAD) : : "r"(area) : "memory");
	write_sysreg(fpcr, area[FPU_CONTROL_WORD]);
}

static void fpu_save(u64 *area)
{
	asm volatile(SIMD FPU_PAIRS(FPU_STORE) : : "r"(area) : "memory");
	area[FPU_CONTROL_WORD] = read_sysreg(fpcr);
}

static u64 fpu_mask(unsigned int word)
{
	return word <= FPU_CONTROL_WORD ? ~0ull : 0;
}

static u64 fpu_wanted(unsigned int word)
{
	return word == FPU_CONTROL_WORD ? FPU_CONTROL : guest_fpu_value(vcpu, word);
}

#endif
