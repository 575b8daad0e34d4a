/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the guest and the VMM both know: where things are in guest memory, and
 * the block through which each vCPU shows what it does. The guest's virtual
 * addresses are offsets into the RAM memfd; where guest-physical memory has
 * its hole is a matter of the page tables, and the guest's code never asks.
 *
 *	0x001000  tables of the architecture, page tables from 0x002000 on
 *	0x040000  guest code
 *	0x080000  one block of GUEST_VCPU_SIZE per vCPU
 *	0x0c0000  what a stage shares with its guest
 *	0x100000  data pages, to the end of RAM or to where the stage's own begin
 */
#ifndef GUEST_H
#define GUEST_H

#define GUEST_PAGE_TABLES	0x2000
#define GUEST_PAGE_TABLES_END	0x40000
#define GUEST_CODE		0x40000
#define GUEST_CODE_END		0x44000
#define GUEST_VCPUS		0x80000
#define GUEST_VCPU_SIZE		0x8000
#define GUEST_MAX_VCPUS		8
#define GUEST_STAGE		0xc0000
#define GUEST_STAGE_SIZE	0x40000
#define GUEST_DATA		0x100000

#define GUEST_PAGE_SIZE		4096
#define GUEST_PAGE_WORDS	(GUEST_PAGE_SIZE / 8)
#define GUEST_DATA_FIRST_PAGE	(GUEST_DATA / GUEST_PAGE_SIZE)

#define GUEST_GAP_LOG		64
#define GUEST_RATES		15
/* Its number among the system registers, as errors give them. */
#define GUEST_IDENTITY		0x1d
#define GUEST_BREAKPOINT	0x1e
/* All that guest_fpu.h of either machine saves. */
#define GUEST_FPU_WORDS		104

#ifndef __ASSEMBLER__

#include <stdbool.h>

#include "types.h"

enum guest_error {
	GUEST_ERROR_MEMORY,
	GUEST_ERROR_GPR,
	GUEST_ERROR_VECTOR,
	GUEST_ERROR_COUNTER,
	GUEST_ERROR_MSR,
	GUEST_ERROR_TIMER,
	GUEST_NR_ERRORS,
};

enum guest_vector_kind {
	GUEST_VECTOR_SSE = 1,
	GUEST_VECTOR_AVX,
	GUEST_VECTOR_NEON,
};

/* Lanes of two vector registers; SSE and NEON have the first two of each. */
struct guest_vector {
	u64 sum[4];
	u64 fold[4];
};

/*
 * Two readings of the TSC with nothing but a pause of the vCPU between them,
 * and the step counter at each: equal to or one less than the other.
 */
struct guest_gap {
	u64 time_before;
	u64 time_after;
	u64 counter_before;
	u64 counter_after;
};

struct guest_first_error {
	u64 kind;
	u64 page;
	u64 word;
	u64 expected;
	u64 seen;
};

/* By how much its timer's count went down while the counter went on by @time. */
struct guest_rate {
	u64 count;
	u64 time;
};

struct guest_vcpu {
	/* from the VMM, before the first instruction */
	struct guest_vcpu *self;
	u64 id;
	u64 nonce;
	u64 first_page;
	u64 nr_pages;
	u64 gap_threshold;
	u64 tick_timeout;

	/* from the guest */
	u64 vector_kind;
	u64 nr_specials;
	u64 sweeps;
	u64 version;
	u64 ticks;
	/* time spent in steps since the last tick, by the TSC */
	u64 tickless;
	u64 last_time;
	u64 last_counter;
	u64 fault;
	u64 fault_rip;
	u64 fault_code;

	/* what the registers have to be: r12 (above), r13, r14, r15, vectors */
	u64 cursor;
	u64 counter;
	u64 checksum;
	struct guest_vector vector;

	u64 errors[GUEST_NR_ERRORS];
	struct guest_first_error first_error;

	u64 gaps;
	/* the longest, and the longest but one */
	struct guest_gap gap_max;
	struct guest_gap gap_next;
	struct guest_gap gap_log[GUEST_GAP_LOG];

	/* interrupts that the VMM has left for it, of each kind */
	u64 pending;
	u64 injected;
	u64 routed;
	u64 nmis;
	/* of @injected, those that were in service before or after, and must not be */
	u64 unended;

	/* exceptions at guest_breakpoint() */
	u64 breakpoints;

	/* measured last, so often in all, and where the next began */
	struct guest_rate timer_rate[GUEST_RATES];
	u64 timer_rates;
	struct guest_rate timer_began;
	/* the shortest reading */
	u64 timer_took;

	/* what instructions say that the CPU is */
	u64 identity;

	/* the rest of the FPU: as it was loaded, and as it was seen last */
	u64 fpu[GUEST_FPU_WORDS] __aligned(64);
	u64 fpu_seen[GUEST_FPU_WORDS] __aligned(64);

	u8 idt[4096] __aligned(4096);
	u8 stack[8192];
} __aligned(4096);

_Static_assert(sizeof(struct guest_vcpu) <= GUEST_VCPU_SIZE, "vCPU block too large");
/* The host finds them there: common/guest/memory.py */
_Static_assert(__builtin_offsetof(struct guest_vcpu, version) == 80 &&
	       __builtin_offsetof(struct guest_vcpu, cursor) == 144 &&
	       __builtin_offsetof(struct guest_vcpu, counter) == 152, "other layout");

static inline u64 guest_mix(u64 x)
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93ull;
	return x ^ x >> 32;
}

/*
 * Content of word @w of a page: guest_pattern() + @w * GUEST_WORD_STEP. Differs
 * between words, pages, versions and runs.
 */
#define GUEST_WORD_STEP 0x9e3779b97f4a7c15ull

static inline u64 guest_pattern(u64 nonce, u64 page, u64 version)
{
	return guest_mix(nonce ^ guest_mix(page << 32 ^ version));
}

/* What a word of the FPU's area holds, where any value will do. */
static inline u64 guest_fpu_value(const struct guest_vcpu *block, unsigned int word)
{
	return guest_mix(block->nonce ^ guest_mix(block->id << 16 ^ 0xf000 ^ word));
}

/* The stage's guest program: entered once per vCPU, never returns. */
void guest_main(struct guest_vcpu *block);

/* guest_sweep.c: once, before the first step; and one page verified and written. */
void guest_start(struct guest_vcpu *block);
void guest_step(void);

#endif /* __ASSEMBLER__ */
#endif
