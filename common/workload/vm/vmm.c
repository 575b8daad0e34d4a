// SPDX-License-Identifier: GPL-2.0-only
/* Creation of the VM and its guest, and running and pausing of its vCPUs. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "parallel.h"
#include "vmm.h"

/* Guest-physical memory has a hole for devices from 3 GiB to 4 GiB, as in a PC. */
#define LOW_RAM_END		(3ull << 30)
#define HIGH_RAM_START		(4ull << 30)

/* KVM_SET_TSS_ADDR and the identity map need pages of their own in the hole. */
#define TSS_ADDRESS		0xfffbd000
#define IDENTITY_MAP_ADDRESS	0xfffbc000

#define PTE_PRESENT_WRITABLE	0x3
#define PTE_LARGE		0x80

#define CR0_PE_MP_ET_NE_WP_PG	0x80010033
#define CR4_PAE_OSFXSR_OSXMMEXCPT 0x620
#define EFER_SCE_LME_LMA_NX	0xd01

/* A vCPU leaves the guest within microseconds of its signal. */
#define PAUSE_MS 5000

#define GAP_THRESHOLD_US 1000
/*
 * Fifty ticks of the guest's timer. On a crowded host it may be QEMU's main
 * loop that waits for a CPU, and with it all timers, while the vCPUs run.
 */
#define TICK_TIMEOUT_US 500000

u64 ram_to_gpa(u64 offset)
{
	return offset < LOW_RAM_END ? offset : offset - LOW_RAM_END + HIGH_RAM_START;
}

static void add_memslot(struct vmm *vmm, u32 slot, u64 offset, u64 size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = ram_to_gpa(offset),
		.memory_size = size,
		.userspace_addr = (u64)vmm->ram + offset,
	};

	must(sys(ioctl(vmm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region)));
}

static void create_vcpu(struct vmm *vmm, unsigned int i)
{
	struct vcpu *vcpu = &vmm->vcpus[i];
	long run_size;

	vcpu->vmm = vmm;
	vcpu->fd = must(sys(ioctl(vmm->vm_fd, KVM_CREATE_VCPU, i)));
	run_size = must(sys(ioctl(vmm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0)));
	vcpu->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	must_be(vcpu->run != MAP_FAILED, "kvm_run: %s", errno_name(-errno));
	vcpu->block = (void *)(vmm->ram + GUEST_VCPUS + i * GUEST_VCPU_SIZE);
}

void vmm_create(struct vmm *vmm, int ram_fd, u8 *ram, u64 ram_size, unsigned int nr_vcpus)
{
	u64 low = ram_size < LOW_RAM_END ? ram_size : LOW_RAM_END;
	u64 identity_map = IDENTITY_MAP_ADDRESS;

	must_be(nr_vcpus && nr_vcpus <= GUEST_MAX_VCPUS, "%u vCPUs", nr_vcpus);

	memset(vmm, 0, sizeof(*vmm));
	vmm->ram_fd = ram_fd;
	vmm->ram = ram;
	vmm->ram_size = ram_size;
	vmm->nr_vcpus = nr_vcpus;
	vmm->kvm_fd = must(sys(open("/dev/kvm", O_RDWR | O_CLOEXEC)));
	vmm->vm_fd = must(sys(ioctl(vmm->kvm_fd, KVM_CREATE_VM, 0)));
	must(sys(ioctl(vmm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map)));
	must(sys(ioctl(vmm->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS)));
	must(sys(ioctl(vmm->vm_fd, KVM_CREATE_IRQCHIP, 0)));
	/*
	 * 0 is the rate that the kernel knows by now. Without an invariant TSC
	 * (QEMU's TCG has none) KVM's default is the one of early boot; where
	 * the later calibration is 250 ppm off, KVM either warns or drags the
	 * guest's TSC after its own idea of time.
	 */
	must(sys(ioctl(vmm->vm_fd, KVM_SET_TSC_KHZ, 0)));
	add_memslot(vmm, 0, 0, low);
	if (ram_size > low)
		add_memslot(vmm, 1, low, ram_size - low);
	for (unsigned int i = 0; i < nr_vcpus; i++)
		create_vcpu(vmm, i);
}

/* Virtual address = offset into the RAM memfd. */
static void build_page_tables(struct vmm *vmm)
{
	u64 *pml4 = (u64 *)(vmm->ram + GUEST_PAGE_TABLES);
	u64 *pdpt = pml4 + 512, *pd = pdpt + 512;
	u64 large_pages = vmm->ram_size / LARGE_PAGE_SIZE;
	u64 tables_end = GUEST_PAGE_TABLES + 2 * 4096 + large_pages * 8;

	must_be(tables_end <= GUEST_PAGE_TABLES_END, "%llu bytes of RAM are too many",
		vmm->ram_size);
	pml4[0] = (GUEST_PAGE_TABLES + 0x1000) | PTE_PRESENT_WRITABLE;
	for (u64 i = 0; i * 512 < large_pages; i++)
		pdpt[i] = (GUEST_PAGE_TABLES + 0x2000 + i * 0x1000) | PTE_PRESENT_WRITABLE;
	for (u64 i = 0; i < large_pages; i++)
		pd[i] = ram_to_gpa(i * LARGE_PAGE_SIZE) | PTE_PRESENT_WRITABLE | PTE_LARGE;
}

static void build_gdt(struct vmm *vmm)
{
	u64 *gdt = (u64 *)(vmm->ram + GUEST_GDT);

	gdt[GUEST_CODE_SELECTOR / 8] = 0x00af9b000000ffff;
	gdt[GUEST_DATA_SELECTOR / 8] = 0x00cf93000000ffff;
}

static void give_share(struct vmm *vmm, unsigned int i, u64 nonce, u64 data_end, u64 tsc_khz)
{
	struct guest_vcpu *block = vmm->vcpus[i].block;
	u64 pages = data_end / GUEST_PAGE_SIZE - GUEST_DATA_FIRST_PAGE;
	u64 first = pages * i / vmm->nr_vcpus, end = pages * (i + 1) / vmm->nr_vcpus;

	block->self = (void *)(GUEST_VCPUS + i * (u64)GUEST_VCPU_SIZE);
	block->id = i;
	block->nonce = nonce;
	block->first_page = GUEST_DATA_FIRST_PAGE + first;
	block->nr_pages = end - first;
	block->gap_threshold = tsc_khz * GAP_THRESHOLD_US / 1000;
	block->tick_timeout = tsc_khz * TICK_TIMEOUT_US / 1000;
}

static void set_cpuid(struct vmm *vmm, struct vcpu *vcpu)
{
	union {
		struct kvm_cpuid2 list;
		u8 space[sizeof(struct kvm_cpuid2) + 256 * sizeof(struct kvm_cpuid_entry2)];
	} cpuid = { .list.nent = 256 };
	u32 id = vcpu->block->id;

	must(sys(ioctl(vmm->kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid)));
	for (u32 i = 0; i < cpuid.list.nent; i++) {
		struct kvm_cpuid_entry2 *entry = &cpuid.list.entries[i];

		/* These hold the APIC id of the CPU that asked. */
		if (entry->function == 0x1)
			entry->ebx = (entry->ebx & 0x00ffffff) | id << 24;
		else if (entry->function == 0xb)
			entry->edx = id;
	}
	must(sys(ioctl(vcpu->fd, KVM_SET_CPUID2, &cpuid)));
}

/* @request: KVM_GET_DEVICE_ATTR or KVM_SET_DEVICE_ATTR; guest's TSC = host's + offset */
void vcpu_tsc_offset(struct vcpu *vcpu, unsigned long request, u64 *offset)
{
	struct kvm_device_attr attribute = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (u64)offset,
	};

	must(sys(ioctl(vcpu->fd, request, &attribute)));
}

static struct kvm_segment segment(u16 selector, u8 type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.l = code,
		.db = !code,
		.g = 1,
	};
}

static void set_first_registers(struct vcpu *vcpu)
{
	u64 block = (u64)vcpu->block->self;
	struct kvm_mp_state runnable = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = {
		.rip = GUEST_CODE,
		.rflags = 0x2,
		.rdi = block,
		.rsp = block + offsetof(struct guest_vcpu, stack) +
		       sizeof(vcpu->block->stack),
	};
	struct kvm_sregs sregs;

	must(sys(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs)));
	sregs.cs = segment(GUEST_CODE_SELECTOR, 0xb, true);
	sregs.ds = segment(GUEST_DATA_SELECTOR, 0x3, false);
	sregs.es = sregs.ds;
	sregs.fs = sregs.ds;
	sregs.gs = sregs.ds;
	sregs.ss = sregs.ds;
	sregs.tr = (struct kvm_segment){
		.limit = 0x67,
		.selector = GUEST_TSS_SELECTOR,
		.type = 0xb,
		.present = 1,
	};
	sregs.gdt.base = GUEST_GDT;
	sregs.gdt.limit = 4 * 8 - 1;
	sregs.cr0 = CR0_PE_MP_ET_NE_WP_PG;
	sregs.cr3 = GUEST_PAGE_TABLES;
	sregs.cr4 = CR4_PAE_OSFXSR_OSXMMEXCPT;
	sregs.efer = EFER_SCE_LME_LMA_NX;
	must(sys(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_REGS, &regs)));
	must(sys(ioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable)));
}

/*
 * A guest that is about to execute its first instruction. It sweeps its memory
 * up to @data_end.
 */
void vmm_load_guest(struct vmm *vmm, u64 nonce, u64 data_end)
{
	u64 image_size = guest_image_end - guest_image;
	/* The guest's TSC starts near 0: an offset that is lost will be seen. */
	u64 tsc_offset = -rdtsc();

	build_page_tables(vmm);
	build_gdt(vmm);
	must_be(GUEST_CODE + image_size <= GUEST_CODE_END, "%llu bytes", image_size);
	memcpy(vmm->ram + GUEST_CODE, guest_image, image_size);

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		struct vcpu *vcpu = &vmm->vcpus[i];

		give_share(vmm, i, nonce, data_end,
			   must(sys(ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0))));
		set_cpuid(vmm, vcpu);
		set_first_registers(vcpu);
		vcpu_tsc_offset(vcpu, KVM_SET_DEVICE_ATTR, &tsc_offset);
	}
}

static void prefault_range(struct vcpu *vcpu, u64 gpa, u64 size)
{
	struct kvm_pre_fault_memory range = { .gpa = gpa, .size = size };

	/* EINTR and EAGAIN leave in @range what is still to be done. */
	while (range.size) {
		long ret = sys(ioctl(vcpu->fd, KVM_PRE_FAULT_MEMORY, &range));

		if (ret < 0 && ret != -EINTR && ret != -EAGAIN)
			bail("KVM_PRE_FAULT_MEMORY at 0x%llx: %s", range.gpa, errno_name(ret));
	}
}

/*
 * All of RAM in the nested page tables before the first KVM_RUN. On an emulated
 * CPU an exit costs 100 us, which makes 6 s of faults for 256 MiB.
 */
void vmm_prefault(struct vmm *vmm)
{
	u64 low = vmm->ram_size < LOW_RAM_END ? vmm->ram_size : LOW_RAM_END;

	prefault_range(&vmm->vcpus[0], 0, low);
	if (vmm->ram_size > low)
		prefault_range(&vmm->vcpus[0], HIGH_RAM_START, vmm->ram_size - low);
}

/* Running and pausing */

static void kick(int signal)
{
	(void)signal;
}

/*
 * Returns when vmm_pause() has asked for it, or when the guest did something
 * it never should. immediate_exit is looked at by KVM_RUN itself, after it has
 * completed what an earlier exit may have left to be done; a signal that comes
 * just before the ioctl is therefore not lost, and the state can be read.
 */
static enum vcpu_run_state run_vcpu(struct vcpu *vcpu)
{
	long ret;

	do {
		ret = sys(ioctl(vcpu->fd, KVM_RUN, 0));
	} while (ret == -EINTR && !READ_ONCE(vcpu->run->immediate_exit));

	if (ret == -EINTR)
		return VCPU_PARKED;
	vcpu->error = ret;
	return VCPU_STOPPED;
}

static void *vcpu_thread(void *argument)
{
	struct vcpu *vcpu = argument;
	struct vmm *vmm = vcpu->vmm;

	pthread_mutex_lock(&vmm->lock);
	for (;;) {
		enum vcpu_run_state state;

		while (!vcpu->wanted || vcpu->state == VCPU_STOPPED)
			pthread_cond_wait(&vmm->changed, &vmm->lock);
		vcpu->state = VCPU_RUNNING;
		pthread_mutex_unlock(&vmm->lock);
		state = run_vcpu(vcpu);
		pthread_mutex_lock(&vmm->lock);
		vcpu->state = state;
		pthread_cond_broadcast(&vmm->changed);
	}
	return NULL;
}

void vmm_start_threads(struct vmm *vmm)
{
	struct sigaction action = { .sa_handler = kick };
	pthread_condattr_t monotonic;

	must(sys(sigaction(SIGUSR1, &action, NULL)));
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&vmm->changed, &monotonic);
	pthread_mutex_init(&vmm->lock, NULL);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		must(-pthread_create(&vmm->vcpus[i].thread, NULL, vcpu_thread, &vmm->vcpus[i]));
}

void vmm_run(struct vmm *vmm)
{
	pthread_mutex_lock(&vmm->lock);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		vmm->vcpus[i].run->immediate_exit = 0;
		vmm->vcpus[i].wanted = true;
	}
	pthread_cond_broadcast(&vmm->changed);
	pthread_mutex_unlock(&vmm->lock);
}

/* No vCPU executes guest code any more, and each one's state can be read. */
void vmm_pause(struct vmm *vmm)
{
	struct timespec deadline;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += PAUSE_MS / 1000;

	pthread_mutex_lock(&vmm->lock);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		vmm->vcpus[i].wanted = false;
		WRITE_ONCE(vmm->vcpus[i].run->immediate_exit, 1);
		pthread_kill(vmm->vcpus[i].thread, SIGUSR1);
	}
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		while (vmm->vcpus[i].state == VCPU_RUNNING)
			must_be(!pthread_cond_timedwait(&vmm->changed, &vmm->lock, &deadline),
				"vCPU %u did not stop within %d ms", i, PAUSE_MS);
	pthread_mutex_unlock(&vmm->lock);
	vmm_check(vmm);
}

/* Ends this side when a vCPU has stopped by itself, with what KVM or the guest says. */
void vmm_check(struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		struct vcpu *vcpu = &vmm->vcpus[i];
		enum vcpu_run_state state;

		must_be(!READ_ONCE(vcpu->block->fault),
			"guest vCPU %u took an exception at 0x%llx, error code 0x%llx", i,
			vcpu->block->fault_rip, vcpu->block->fault_code);

		pthread_mutex_lock(&vmm->lock);
		state = vcpu->state;
		pthread_mutex_unlock(&vmm->lock);
		must_be(state != VCPU_STOPPED, "vCPU %u: KVM_RUN = %d, exit reason %u", i,
			vcpu->error, vcpu->run->exit_reason);
	}
}

void vmm_read_counters(const struct vmm *vmm, u64 *counters)
{
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		counters[i] = READ_ONCE(vmm->vcpus[i].block->counter);
}

/*
 * A sweep of 256 MiB takes about a second on an emulated CPU; the bound is for
 * a host that is busy with other things.
 */
u64 vmm_sweep_timeout_ms(const struct vmm *vmm)
{
	return 30000 + (vmm->ram_size >> 20) * 100;
}

/*
 * Returns when every vCPU has been at each of its pages once more than at
 * @from: a step is one page, so this is as many steps as it has pages, from
 * wherever it was.
 */
void vmm_wait_sweep(struct vmm *vmm, const u64 *from, u64 timeout_ms)
{
	struct deadline deadline = deadline_in_ms(timeout_ms);

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		struct guest_vcpu *block = vmm->vcpus[i].block;

		while (READ_ONCE(block->counter) <= from[i] + block->nr_pages) {
			vmm_check(vmm);
			must_be(!deadline_passed(deadline),
				"vCPU %u is at step %llu after %llu ms, a sweep would end at %llu",
				i, READ_ONCE(block->counter), timeout_ms,
				from[i] + block->nr_pages);
			poll_pause();
		}
	}
}

/* Full sweeps of the slowest vCPU since @from. */
u64 vmm_sweeps_since(const struct vmm *vmm, const u64 *from)
{
	u64 fewest = ~0ull;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		const struct guest_vcpu *block = vmm->vcpus[i].block;
		u64 sweeps = (READ_ONCE(block->counter) - from[i]) / block->nr_pages;

		if (sweeps < fewest)
			fewest = sweeps;
	}
	return fewest;
}

u64 vmm_steps(const struct vmm *vmm)
{
	u64 steps = 0;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		steps += READ_ONCE(vmm->vcpus[i].block->counter);
	return steps;
}
