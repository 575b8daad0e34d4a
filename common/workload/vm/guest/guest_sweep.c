// SPDX-License-Identifier: GPL-2.0-only
/*
 * What every guest does. Each vCPU sweeps its share of the pages for ever:
 * verify a page, write it anew, fold what was done into checksums that live in
 * registers. The stage's guest_main() calls guest_step() and does its own work
 * between two steps.
 * Copies of all register state stand in memory and are compared before each
 * fold, so a register that was not carried over is seen at the next step.
 *
 * Nothing here is told about the live update; a pause is visible only as a gap
 * between two readings of the TSC.
 *
 * r12 to r15 and ymm14/ymm15 belong to the guest for its whole life: this file
 * and the stage's are built with -ffixed-r12..r15 and -mgeneral-regs-only.
 */
#include "guest.h"

register struct guest_vcpu *vcpu asm("r12");
register u64 cursor asm("r13");
register u64 counter asm("r14");
register u64 checksum asm("r15");

#define TIMER_VECTOR		0x40

#define MSR_APIC_BASE		0x1b
#define APIC_BASE_X2APIC	BIT(10)
#define APIC_BASE_ENABLE	BIT(11)
#define X2APIC_EOI		0x80b
#define X2APIC_SPIV		0x80f
#define X2APIC_LVT_TIMER	0x832
#define X2APIC_TIMER_COUNT	0x838
#define X2APIC_TIMER_DIVIDE	0x83e
#define APIC_SPIV_ENABLE	BIT(8)
#define APIC_SPURIOUS_VECTOR	0xff
#define APIC_TIMER_PERIODIC	BIT(17)
#define APIC_DIVIDE_BY_1	0xb
/* KVM's APIC bus clock is 1 GHz: 100 ticks a second. */
#define APIC_TIMER_COUNT	10000000

#define CR4_OSXSAVE		BIT(18)
#define XCR0_X87_SSE_AVX	7

#define CPUID_1_ECX_XSAVE	BIT(26)
#define CPUID_1_ECX_AVX		BIT(28)
#define CPUID_7_EBX_AVX2	BIT(5)

static inline void wrmsr(u32 msr, u64 value)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (u64)high << 32 | low;
}

static inline void cpuid(u32 leaf, u32 *ebx, u32 *ecx)
{
	u32 eax = leaf, edx;

	*ecx = 0;
	asm volatile("cpuid" : "+a"(eax), "=b"(*ebx), "+c"(*ecx), "=d"(edx));
}

static inline u64 rotate(u64 x, unsigned int bits)
{
	return x << bits | x >> (64 - bits);
}

static void error(enum guest_error kind, u64 page, u64 word, u64 expected, u64 seen)
{
	bool first = true;

	for (int i = 0; i < GUEST_NR_ERRORS; i++)
		first &= !vcpu->errors[i];
	if (first) {
		vcpu->first_error.kind = kind;
		vcpu->first_error.page = page;
		vcpu->first_error.word = word;
		vcpu->first_error.expected = expected;
		vcpu->first_error.seen = seen;
	}
	WRITE_ONCE(vcpu->errors[kind], vcpu->errors[kind] + 1);
}

/* Interrupts and exceptions */

struct interrupt_frame {
	u64 rip, cs, rflags, rsp, ss;
};

struct idt_entry {
	u16 offset_low, selector;
	u16 flags, offset_middle;
	u32 offset_high, reserved;
};

/* Not r12: a handler must not trust what the test is there to find broken. */
static inline struct guest_vcpu *this_vcpu(void)
{
	struct guest_vcpu *self;

	asm volatile("mov %%gs:0, %0" : "=r"(self));
	return self;
}

static __attribute__((interrupt)) void timer_interrupt(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();

	(void)frame;
	WRITE_ONCE(self->tickless, 0);
	WRITE_ONCE(self->ticks, self->ticks + 1);
	wrmsr(X2APIC_EOI, 0);
}

static __attribute__((interrupt)) void stray_interrupt(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();

	(void)frame;
	WRITE_ONCE(self->errors[GUEST_ERROR_TIMER], self->errors[GUEST_ERROR_TIMER] + 1);
	wrmsr(X2APIC_EOI, 0);
}

static void __noreturn die(u64 rip, u64 code)
{
	struct guest_vcpu *self = this_vcpu();

	self->fault_rip = rip;
	self->fault_code = code;
	WRITE_ONCE(self->fault, 1);
	for (;;)
		asm volatile("cli; hlt");
}

static __attribute__((interrupt)) void fault(struct interrupt_frame *frame)
{
	die(frame->rip, 0);
}

static __attribute__((interrupt)) void fault_with_code(struct interrupt_frame *frame, u64 code)
{
	die(frame->rip, code);
}

/* #DF #TS #NP #SS #GP #PF #AC #CP #VC #SX push an error code. */
#define HAS_ERROR_CODE 0x60227d00u

static void set_gate(unsigned int vector, void *handler)
{
	struct idt_entry *entry = (struct idt_entry *)vcpu->idt + vector;
	u64 offset = (u64)handler;

	entry->offset_low = offset;
	entry->selector = GUEST_CODE_SELECTOR;
	/* present, 64-bit interrupt gate */
	entry->flags = 0x8e00;
	entry->offset_middle = offset >> 16;
	entry->offset_high = offset >> 32;
}

static void start_interrupts(void)
{
	struct {
		u16 limit;
		u64 base;
	} __packed idtr = {
		.limit = sizeof(vcpu->idt) - 1,
		.base = (u64)vcpu->idt,
	};

	for (unsigned int vector = 0; vector < 32; vector++)
		set_gate(vector, HAS_ERROR_CODE >> vector & 1 ? (void *)fault_with_code :
								(void *)fault);
	for (unsigned int vector = 32; vector < 256; vector++)
		set_gate(vector, stray_interrupt);
	set_gate(TIMER_VECTOR, timer_interrupt);
	asm volatile("lidt %0" : : "m"(idtr));

	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2APIC);
	wrmsr(X2APIC_SPIV, APIC_SPIV_ENABLE | APIC_SPURIOUS_VECTOR);
	wrmsr(X2APIC_TIMER_DIVIDE, APIC_DIVIDE_BY_1);
	wrmsr(X2APIC_LVT_TIMER, APIC_TIMER_PERIODIC | TIMER_VECTOR);
	wrmsr(X2APIC_TIMER_COUNT, APIC_TIMER_COUNT);
	asm volatile("sti");
}

/* Vector registers: ymm15 is the sum, ymm14 its fold, ymm0/ymm1 are scratch. */

static void start_vector(void)
{
	u32 ebx, ecx;
	u64 cr4;

	vcpu->vector_kind = GUEST_VECTOR_SSE;
	cpuid(7, &ebx, &ecx);
	if (ebx & CPUID_7_EBX_AVX2) {
		cpuid(1, &ebx, &ecx);
		if (ecx & CPUID_1_ECX_XSAVE && ecx & CPUID_1_ECX_AVX)
			vcpu->vector_kind = GUEST_VECTOR_AVX;
	}

	if (vcpu->vector_kind == GUEST_VECTOR_AVX) {
		asm volatile("mov %%cr4, %0" : "=r"(cr4));
		asm volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_OSXSAVE));
		asm volatile("xsetbv" : : "c"(0), "a"(XCR0_X87_SSE_AVX), "d"(0));
		asm volatile("vpxor %ymm14, %ymm14, %ymm14\n\t"
			     "vpxor %ymm15, %ymm15, %ymm15");
	} else {
		asm volatile("pxor %xmm14, %xmm14\n\t"
			     "pxor %xmm15, %xmm15");
	}
}

static void read_vector(struct guest_vector *vector)
{
	if (vcpu->vector_kind == GUEST_VECTOR_AVX)
		asm volatile("vmovdqu %%ymm15, %0\n\t"
			     "vmovdqu %%ymm14, %1"
			     : "=m"(vector->sum), "=m"(vector->fold));
	else
		asm volatile("movdqu %%xmm15, %0\n\t"
			     "movdqu %%xmm14, %1"
			     : "=m"(vector->sum), "=m"(vector->fold));
}

static void write_vector(const struct guest_vector *vector)
{
	if (vcpu->vector_kind == GUEST_VECTOR_AVX)
		asm volatile("vmovdqu %0, %%ymm15\n\t"
			     "vmovdqu %1, %%ymm14"
			     : : "m"(vector->sum), "m"(vector->fold));
	else
		asm volatile("movdqu %0, %%xmm15\n\t"
			     "movdqu %1, %%xmm14"
			     : : "m"(vector->sum), "m"(vector->fold));
}

struct lanes {
	u64 lane[4];
};

/* sum = rotate(sum, 7) + input; fold ^= sum; in each lane */
static void fold_vector_registers(const struct lanes *input)
{
	if (vcpu->vector_kind == GUEST_VECTOR_AVX)
		asm volatile("vmovdqu %0, %%ymm0\n\t"
			     "vpsllq $7, %%ymm15, %%ymm1\n\t"
			     "vpsrlq $57, %%ymm15, %%ymm15\n\t"
			     "vpor %%ymm1, %%ymm15, %%ymm15\n\t"
			     "vpaddq %%ymm0, %%ymm15, %%ymm15\n\t"
			     "vpxor %%ymm15, %%ymm14, %%ymm14"
			     : : "m"(*input));
	else
		asm volatile("movdqu %0, %%xmm0\n\t"
			     "movdqa %%xmm15, %%xmm1\n\t"
			     "psllq $7, %%xmm1\n\t"
			     "psrlq $57, %%xmm15\n\t"
			     "por %%xmm1, %%xmm15\n\t"
			     "paddq %%xmm0, %%xmm15\n\t"
			     "pxor %%xmm15, %%xmm14"
			     : : "m"(*input));
}

static int vector_lanes(void)
{
	return vcpu->vector_kind == GUEST_VECTOR_AVX ? 4 : 2;
}

static void check_vector(void)
{
	struct guest_vector seen;
	int bad = -1;

	read_vector(&seen);
	for (int i = 0; i < vector_lanes(); i++)
		if (seen.sum[i] != vcpu->vector.sum[i] || seen.fold[i] != vcpu->vector.fold[i])
			bad = i;
	if (bad < 0)
		return;

	/* "word" is the lane; of the two registers the first that differs */
	if (seen.sum[bad] != vcpu->vector.sum[bad])
		error(GUEST_ERROR_VECTOR, cursor, bad, vcpu->vector.sum[bad], seen.sum[bad]);
	else
		error(GUEST_ERROR_VECTOR, cursor, bad, vcpu->vector.fold[bad], seen.fold[bad]);
	write_vector(&vcpu->vector);
}

static void fold_vector(u64 input)
{
	struct lanes lanes;

	for (int i = 0; i < vector_lanes(); i++) {
		lanes.lane[i] = input + i * GUEST_WORD_STEP;
		vcpu->vector.sum[i] = rotate(vcpu->vector.sum[i], 7) + lanes.lane[i];
		vcpu->vector.fold[i] ^= vcpu->vector.sum[i];
	}
	fold_vector_registers(&lanes);
}

/*
 * General registers: one that changed is counted once and put right, so that
 * one broken value makes one error and not one in every step.
 */
static void check_registers(void)
{
	if (vcpu != this_vcpu()) {
		u64 seen = (u64)vcpu;

		vcpu = this_vcpu();
		error(GUEST_ERROR_GPR, 0, 12, (u64)vcpu, seen);
	}
	if (cursor != READ_ONCE(vcpu->cursor)) {
		error(GUEST_ERROR_GPR, 0, 13, vcpu->cursor, cursor);
		cursor = vcpu->cursor;
	}
	if (checksum != READ_ONCE(vcpu->checksum)) {
		error(GUEST_ERROR_GPR, 0, 15, vcpu->checksum, checksum);
		checksum = vcpu->checksum;
	}
	if (counter != READ_ONCE(vcpu->counter)) {
		error(GUEST_ERROR_COUNTER, 0, 14, vcpu->counter, counter);
		counter = vcpu->counter;
	}
}

/*
 * MSRs and debug registers that nothing but the guest writes. DR7 stays as it
 * is at reset, so the addresses are never acted upon.
 */

static const struct {
	u32 msr;
	u64 mask;
} checked_msrs[] = {
	{ 0xc0000081, ~0ull },			/* STAR */
	{ 0xc0000082, 0x7fffffffffff },		/* LSTAR: canonical */
	{ 0xc0000083, 0x7fffffffffff },		/* CSTAR: canonical */
	{ 0xc0000084, 0xffffffff },		/* SFMASK */
	{ 0xc0000102, 0x7fffffffffff },		/* KERNEL_GS_BASE: canonical */
	{ 0xc0000100, 0x7fffffffffff },		/* FS_BASE: canonical */
};

#define NR_MSRS ((int)ARRAY_SIZE(checked_msrs))
#define NR_DEBUG_REGISTERS 4

static u64 special_value(int index)
{
	u64 value = guest_mix(vcpu->nonce ^ (vcpu->id << 8 | index));

	return index < NR_MSRS ? value & checked_msrs[index].mask : value;
}

static u64 read_special(int index)
{
	u64 value = 0;

	switch (index - NR_MSRS) {
	case 0:
		asm volatile("mov %%dr0, %0" : "=r"(value));
		break;
	case 1:
		asm volatile("mov %%dr1, %0" : "=r"(value));
		break;
	case 2:
		asm volatile("mov %%dr2, %0" : "=r"(value));
		break;
	case 3:
		asm volatile("mov %%dr3, %0" : "=r"(value));
		break;
	default:
		value = rdmsr(checked_msrs[index].msr);
	}
	return value;
}

static void write_special(int index, u64 value)
{
	switch (index - NR_MSRS) {
	case 0:
		asm volatile("mov %0, %%dr0" : : "r"(value));
		break;
	case 1:
		asm volatile("mov %0, %%dr1" : : "r"(value));
		break;
	case 2:
		asm volatile("mov %0, %%dr2" : : "r"(value));
		break;
	case 3:
		asm volatile("mov %0, %%dr3" : : "r"(value));
		break;
	default:
		wrmsr(checked_msrs[index].msr, value);
	}
}

static void start_specials(void)
{
	for (int i = 0; i < NR_MSRS + NR_DEBUG_REGISTERS; i++)
		write_special(i, special_value(i));
}

static void check_specials(void)
{
	for (int i = 0; i < NR_MSRS + NR_DEBUG_REGISTERS; i++) {
		u64 expected = special_value(i), seen = read_special(i);

		if (seen == expected)
			continue;
		error(GUEST_ERROR_MSR, 0, i < NR_MSRS ? checked_msrs[i].msr : (u32)(i - NR_MSRS),
		      expected, seen);
		write_special(i, expected);
	}
}

/* Time */

static void note_time(void)
{
	u64 now = rdtsc();
	struct guest_gap gap = {
		.tsc_before = vcpu->last_tsc,
		.tsc_after = now,
		.counter_before = vcpu->last_counter,
		.counter_after = counter,
	};

	vcpu->last_tsc = now;
	vcpu->last_counter = counter;
	if (now - gap.tsc_before > vcpu->gap_max.tsc_after - vcpu->gap_max.tsc_before)
		vcpu->gap_max = gap;
	if (now - gap.tsc_before > vcpu->gap_threshold) {
		vcpu->gap_log[vcpu->gaps % GUEST_GAP_LOG] = gap;
		WRITE_ONCE(vcpu->gaps, vcpu->gaps + 1);
	} else {
		/* While the vCPU stands still no tick can be missed. */
		WRITE_ONCE(vcpu->tickless, READ_ONCE(vcpu->tickless) + now - gap.tsc_before);
	}
	if (READ_ONCE(vcpu->tickless) > vcpu->tick_timeout) {
		error(GUEST_ERROR_TIMER, 0, 0, vcpu->tick_timeout, vcpu->tickless);
		WRITE_ONCE(vcpu->tickless, 0);
	}
}

/* Memory */

static void verify_page(u64 page, u64 version)
{
	const u64 *words = (const u64 *)(page * GUEST_PAGE_SIZE);
	u64 first = guest_pattern(vcpu->nonce, page, version);
	u64 expected = first, different = 0;

	for (int i = 0; i < GUEST_PAGE_WORDS; i += 8) {
		for (int j = 0; j < 8; j++) {
			different |= words[i + j] ^ expected;
			expected += GUEST_WORD_STEP;
		}
	}
	if (!different)
		return;

	expected = first;
	for (int i = 0; i < GUEST_PAGE_WORDS; i++, expected += GUEST_WORD_STEP) {
		if (words[i] == expected)
			continue;
		error(GUEST_ERROR_MEMORY, page, i, expected, words[i]);
		return;
	}
}

static void write_page(u64 page, u64 version)
{
	u64 *words = (u64 *)(page * GUEST_PAGE_SIZE);
	u64 value = guest_pattern(vcpu->nonce, page, version);

	for (int i = 0; i < GUEST_PAGE_WORDS; i += 8) {
		for (int j = 0; j < 8; j++) {
			words[i + j] = value;
			value += GUEST_WORD_STEP;
		}
	}
}

static void sweep_page(void)
{
	u64 page, input;

	check_registers();
	check_vector();
	counter++;
	WRITE_ONCE(vcpu->counter, vcpu->counter + 1);
	note_time();

	page = vcpu->first_page + cursor;
	if (vcpu->version)
		verify_page(page, vcpu->version);
	write_page(page, vcpu->version + 1);

	input = guest_mix(page << 32 ^ vcpu->version);
	checksum = rotate(checksum, 5) + input;
	vcpu->checksum = rotate(vcpu->checksum, 5) + input;
	fold_vector(input);

	cursor++;
	vcpu->cursor++;
}

static void end_sweep(void)
{
	check_specials();
	vcpu->version++;
	cursor = 0;
	vcpu->cursor = 0;
	WRITE_ONCE(vcpu->sweeps, vcpu->version);
}

void guest_start(struct guest_vcpu *block)
{
	vcpu = block;
	cursor = 0;
	counter = 0;
	checksum = 0;

	wrmsr(0xc0000101, (u64)block);	/* GS_BASE, for this_vcpu() */
	start_vector();
	start_specials();
	start_interrupts();
	vcpu->last_tsc = rdtsc();
}

void guest_step(void)
{
	/* Not r13, which would end the sweep before its check sees it. */
	if (READ_ONCE(vcpu->cursor) >= vcpu->nr_pages)
		end_sweep();
	sweep_page();
}
