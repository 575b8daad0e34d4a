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

#define DEBUG_VECTOR		1
#define NMI_VECTOR		2
#define TIMER_VECTOR		0x40
/* The VMM leaves one of each when it captures the VM: see vm/pending.c */
#define PENDING_VECTOR		0x51
#define INJECTED_VECTOR		0x52
#define ROUTED_VECTOR		0x53

#define MSR_APIC_BASE		0x1b
#define APIC_BASE_X2APIC	BIT(10)
#define APIC_BASE_ENABLE	BIT(11)
#define X2APIC_TPR		0x808
#define X2APIC_EOI		0x80b
#define X2APIC_SPIV		0x80f
#define X2APIC_ISR		0x810
#define X2APIC_LVT_TIMER	0x832
#define X2APIC_TIMER_COUNT	0x838
#define X2APIC_TIMER_LEFT	0x839
#define X2APIC_TIMER_DIVIDE	0x83e
#define APIC_SPIV_ENABLE	BIT(8)
#define APIC_SPURIOUS_VECTOR	0xff
#define APIC_TIMER_PERIODIC	BIT(17)
#define APIC_DIVIDE_BY_1	0xb
/* KVM's APIC bus clock is 1 GHz: 100 ticks a second. */
#define APIC_TIMER_COUNT	10000000

#define RFLAGS_RESUME		BIT(16)

#define CR4_OSXSAVE		BIT(18)
#define XCR0_X87_SSE_AVX	7

#define CPUID_1_ECX_XSAVE	BIT(26)
#define CPUID_1_ECX_AVX		BIT(28)
#define CPUID_7_EBX_AVX2	BIT(5)
#define CPUID_80000001_EDX_RDTSCP BIT(27)

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

static inline u32 cpuid(u32 leaf, u32 *ebx, u32 *ecx)
{
	u32 eax = leaf, edx;

	*ecx = 0;
	asm volatile("cpuid" : "+a"(eax), "=b"(*ebx), "+c"(*ecx), "=d"(edx));
	return edx;
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

/* Was waiting in the LAPIC. */
static __attribute__((interrupt)) void pending_interrupt(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();

	(void)frame;
	WRITE_ONCE(self->pending, self->pending + 1);
	wrmsr(X2APIC_EOI, 0);
}

static inline bool in_service(unsigned int vector)
{
	return rdmsr(X2APIC_ISR + vector / 32) & BIT(vector % 32);
}

/* Was on its way into the vCPU: the LAPIC has it in service, until it is told of the end. */
static __attribute__((interrupt)) void injected_interrupt(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();
	bool served = in_service(INJECTED_VECTOR);

	(void)frame;
	WRITE_ONCE(self->injected, self->injected + 1);
	wrmsr(X2APIC_EOI, 0);
	if (!served || in_service(INJECTED_VECTOR))
		WRITE_ONCE(self->unended, self->unended + 1);
}

/* Was waiting in the IOAPIC. */
static __attribute__((interrupt)) void routed_interrupt(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();

	(void)frame;
	WRITE_ONCE(self->routed, self->routed + 1);
	wrmsr(X2APIC_EOI, 0);
}

/* The instruction is executed then: SDM vol. 3, 19.3.1.1 */
static __attribute__((interrupt)) void debug_exception(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();

	WRITE_ONCE(self->breakpoints, self->breakpoints + 1);
	WRITE_ONCE(frame->rflags, frame->rflags | RFLAGS_RESUME);
}

static __attribute__((interrupt)) void nmi(struct interrupt_frame *frame)
{
	struct guest_vcpu *self = this_vcpu();

	(void)frame;
	WRITE_ONCE(self->nmis, self->nmis + 1);
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
	set_gate(PENDING_VECTOR, pending_interrupt);
	set_gate(INJECTED_VECTOR, injected_interrupt);
	set_gate(ROUTED_VECTOR, routed_interrupt);
	set_gate(DEBUG_VECTOR, debug_exception);
	set_gate(NMI_VECTOR, nmi);
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
 * System registers that nothing but the guest writes: MSRs, of which those from 0x800 on are
 * registers of the LAPIC, and what is no MSR. Each holds bits of this run under its mask, and fixed
 * ones where a value must be of some kind.
 */

enum {
	SPECIAL_CR2,
	/* at guest_breakpoint, the one that is enabled */
	SPECIAL_DR0,
	SPECIAL_DR1,
	SPECIAL_DR2,
	SPECIAL_DR3,
	SPECIAL_DR6,
	SPECIAL_DR7,
};

#define TSC_AUX		0xc0000103
/* By half a minute and more, which nobody takes for a delay. KVM emulates it everywhere. */
#define TSC_ADJUSTED_BY	(1ull << 37)
#define CANONICAL	0x7fffffffffffull
#define LVT_MASKED	0x10080ull
#define LVT_VECTOR	0x7full
/* write-back where the guest's page tables say nothing else; all other entries differ from reset */
#define PAT_VALUE	0x0105060400070406ull
#define MTRR_WRITE_BACK	6ull
#define MTRR_BASE	0x7fffe000ull
/* KVM on AMD keeps the upper half of it, which is CR8. The timer's vector is above all of them. */
#define TPR_BELOW_TIMER	0x30ull

/* guest_entry.S */
void guest_breakpoint(void);

/* DR7: breakpoint 0 is enabled, at an instruction; what others would wait for is of this run. */
#define DR7_OTHERS		0xfff00000ull
#define DR7_BREAKPOINT_0	0x402ull
/* DR6: it was breakpoint 0, as it is after each hit. */
#define DR6_BREAKPOINT_0	0xffff0ff1ull

static const struct {
	u32 number;
	u64 mask, bits;
} specials[] = {
	{ SPECIAL_CR2, ~0ull, 0 },
	{ SPECIAL_DR0, 0, 0 },
	{ SPECIAL_DR1, ~0ull, 0 },
	{ SPECIAL_DR2, ~0ull, 0 },
	{ SPECIAL_DR3, ~0ull, 0 },
	{ SPECIAL_DR6, 0, DR6_BREAKPOINT_0 },
	{ SPECIAL_DR7, DR7_OTHERS, DR7_BREAKPOINT_0 },
	{ 0xc0000081, ~0ull, 0 },		/* STAR */
	{ 0xc0000082, CANONICAL, 0 },		/* LSTAR */
	{ 0xc0000083, CANONICAL, 0 },		/* CSTAR */
	{ 0xc0000084, 0xffffffff, 0 },		/* SFMASK */
	{ 0xc0000102, CANONICAL, 0 },		/* KERNEL_GS_BASE */
	{ 0xc0000100, CANONICAL, 0 },		/* FS_BASE */
	{ 0x174, 0xffff, 0 },			/* SYSENTER_CS */
	{ 0x175, 0x7fffffff, 0 },		/* SYSENTER_ESP: AMD has 32 bits of it */
	{ 0x176, 0x7fffffff, 0 },		/* SYSENTER_EIP */
	{ 0x3b, 0, TSC_ADJUSTED_BY },		/* TSC_ADJUST */
	{ 0x277, 0, PAT_VALUE },		/* PAT */
	{ 0x200, MTRR_BASE, MTRR_WRITE_BACK },	/* MTRR_PHYSBASE0 */
	{ 0x201, MTRR_BASE, 0 },		/* MTRR_PHYSMASK0: not valid */
	{ X2APIC_TPR, TPR_BELOW_TIMER, 0 },
	{ 0x833, LVT_VECTOR, LVT_MASKED },	/* thermal sensor */
	{ 0x834, LVT_VECTOR, LVT_MASKED },	/* performance counters */
	{ 0x835, LVT_VECTOR, LVT_MASKED },	/* LINT0 */
	{ 0x836, LVT_VECTOR, LVT_MASKED },	/* LINT1 */
	{ 0x837, LVT_VECTOR, LVT_MASKED },	/* error */
	{ TSC_AUX, 0xffffffff, 0 },		/* the last, not every CPU has it */
};

static const u32 identity_leaves[] = {
	0, 1, 7, 0xd, 0x40000000, 0x40000001, 0x80000000, 0x80000001, 0x80000007, 0x80000008,
};

/* CPUID, and what instructions read that have registers of their own. */
static __cold u64 cpu_identity(void)
{
	struct __packed {
		u16 limit;
		u64 base;
	} gdt, idt;
	u64 digest = 0, cr0, cr4;
	u32 ldt = 0, task = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(identity_leaves); i++) {
		u32 eax = identity_leaves[i], ebx, ecx = 0, edx;

		asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
		digest = guest_mix(digest ^ eax ^ (u64)ebx << 32);
		digest = guest_mix(digest ^ ecx ^ (u64)edx << 32);
	}
	asm volatile("sgdt %0" : "=m"(gdt));
	asm volatile("sidt %0" : "=m"(idt));
	asm volatile("sldt %0" : "=r"(ldt));
	asm volatile("str %0" : "=r"(task));
	asm volatile("mov %%cr0, %0" : "=r"(cr0));
	asm volatile("mov %%cr4, %0" : "=r"(cr4));
	digest = guest_mix(digest ^ gdt.base ^ (u64)gdt.limit << 48);
	digest = guest_mix(digest ^ idt.base ^ (u64)idt.limit << 48);
	digest = guest_mix(digest ^ ldt ^ (u64)task << 32);
	return guest_mix(digest ^ cr0 ^ cr4 << 32);
}

static u64 timer_count(void)
{
	return rdmsr(X2APIC_TIMER_LEFT);
}

static u64 timer_period(void)
{
	return APIC_TIMER_COUNT;
}

static u64 count_specials(void)
{
	u32 ebx, ecx, edx = cpuid(0x80000001, &ebx, &ecx);

	return ARRAY_SIZE(specials) - !(edx & CPUID_80000001_EDX_RDTSCP);
}

static u64 special_mask(int index)
{
	return specials[index].mask;
}

static u64 special_bits(int index)
{
	if (specials[index].number == SPECIAL_DR0)
		return (u64)guest_breakpoint;
	return specials[index].bits;
}

/* By the debug registers as they are: who touches one has KVM load them all. */
static __cold bool breakpoint_hits(void)
{
	u64 before = vcpu->breakpoints;

	guest_breakpoint();
	return READ_ONCE(vcpu->breakpoints) == before + 1;
}

static u64 special_number(int index)
{
	return specials[index].number;
}

static u64 read_special(int index)
{
	u64 value = 0;

	switch (specials[index].number) {
	case SPECIAL_CR2:
		asm volatile("mov %%cr2, %0" : "=r"(value));
		break;
	case SPECIAL_DR0:
		asm volatile("mov %%dr0, %0" : "=r"(value));
		break;
	case SPECIAL_DR1:
		asm volatile("mov %%dr1, %0" : "=r"(value));
		break;
	case SPECIAL_DR2:
		asm volatile("mov %%dr2, %0" : "=r"(value));
		break;
	case SPECIAL_DR3:
		asm volatile("mov %%dr3, %0" : "=r"(value));
		break;
	case SPECIAL_DR6:
		asm volatile("mov %%dr6, %0" : "=r"(value));
		break;
	case SPECIAL_DR7:
		asm volatile("mov %%dr7, %0" : "=r"(value));
		break;
	default:
		value = rdmsr(specials[index].number);
	}
	return value;
}

/* Where an instruction uses the register; else what it was seen to hold. */
static u64 use_special(int index, u64 seen)
{
	u64 value = seen;
	u32 low, high, aux;

	switch (specials[index].number) {
	case TSC_AUX:
		asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
		return aux;
	case X2APIC_TPR:
		asm volatile("mov %%cr8, %0" : "=r"(value));
		return value << 4;
	}
	return value;
}

static void write_special(int index, u64 value)
{
	switch (specials[index].number) {
	case SPECIAL_CR2:
		asm volatile("mov %0, %%cr2" : : "r"(value));
		break;
	case SPECIAL_DR0:
		asm volatile("mov %0, %%dr0" : : "r"(value));
		break;
	case SPECIAL_DR1:
		asm volatile("mov %0, %%dr1" : : "r"(value));
		break;
	case SPECIAL_DR2:
		asm volatile("mov %0, %%dr2" : : "r"(value));
		break;
	case SPECIAL_DR3:
		asm volatile("mov %0, %%dr3" : : "r"(value));
		break;
	case SPECIAL_DR6:
		asm volatile("mov %0, %%dr6" : : "r"(value));
		break;
	case SPECIAL_DR7:
		asm volatile("mov %0, %%dr7" : : "r"(value));
		break;
	default:
		wrmsr(specials[index].number, value);
	}
}

#endif
