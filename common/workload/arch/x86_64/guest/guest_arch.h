/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest on x86. r12 to r15 and ymm14/ymm15 belong to it for its whole life: what includes this
 * is built with -ffixed-r12..r15 and -mgeneral-regs-only.
 */
#ifndef GUEST_ARCH_H
#define GUEST_ARCH_H

register struct guest_vcpu *vcpu asm("r12");
register u64 cursor asm("r13");
register u64 counter asm("r14");
register u64 checksum asm("r15");

#define GUEST_CODE_SELECTOR	0x08

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

/* Numbers of the registers, as errors give them. */
#define REGISTER_VCPU		12
#define REGISTER_CURSOR		13
#define REGISTER_COUNTER	14
#define REGISTER_CHECKSUM	15

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

static inline void start_this_vcpu(struct guest_vcpu *block)
{
	wrmsr(0xc0000101, (u64)block);	/* GS_BASE */
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

static inline void set_gate(unsigned int vector, void *handler)
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
#define NR_SPECIALS (NR_MSRS + NR_DEBUG_REGISTERS)

static u64 special_mask(int index)
{
	return index < NR_MSRS ? checked_msrs[index].mask : ~0ull;
}

static u64 special_number(int index)
{
	return index < NR_MSRS ? checked_msrs[index].msr : (u32)(index - NR_MSRS);
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

#endif
