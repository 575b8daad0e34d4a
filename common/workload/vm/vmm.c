// SPDX-License-Identifier: GPL-2.0-only
/* Creation of the VM and its guest, and running and pausing of its vCPUs. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm.h"

/* A vCPU leaves the guest within microseconds of its signal. */
#define PAUSE_MS 5000
#define PAUSES 16

/* A vCPU makes a step in microseconds; the bound is for a host that is busy. */
#define STILL_US 500000

#define GAP_THRESHOLD_US 1000
/*
 * Fifty ticks of the guest's timer. On a crowded host it may be QEMU's main
 * loop that waits for a CPU, and with it all timers, while the vCPUs run.
 */
#define TICK_TIMEOUT_US 500000

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
	arch_create_vcpu(vcpu);
}

void vmm_create(struct vmm *vmm, int ram_fd, u8 *ram, u64 ram_size, unsigned int nr_vcpus)
{
	u64 low = low_ram(ram_size);

	must_be(nr_vcpus && nr_vcpus <= GUEST_MAX_VCPUS, "%u vCPUs", nr_vcpus);

	memset(vmm, 0, sizeof(*vmm));
	vmm->ram_fd = ram_fd;
	vmm->ram = ram;
	vmm->ram_size = ram_size;
	vmm->nr_vcpus = nr_vcpus;
	vmm->kvm_fd = must(sys(open("/dev/kvm", O_RDWR | O_CLOEXEC)));
	vmm->vm_fd = must(sys(ioctl(vmm->kvm_fd, KVM_CREATE_VM, 0)));
	arch_create_vm(vmm);
	add_memslot(vmm, 0, 0, low);
	if (ram_size > low)
		add_memslot(vmm, 1, low, ram_size - low);
	for (unsigned int i = 0; i < nr_vcpus; i++)
		create_vcpu(vmm, i);
	arch_create_irqchip(vmm);
}

static void give_share(struct vmm *vmm, unsigned int i, u64 nonce, u64 data_end, u64 khz)
{
	struct guest_vcpu *block = vmm->vcpus[i].block;
	u64 pages = data_end / GUEST_PAGE_SIZE - GUEST_DATA_FIRST_PAGE;
	u64 first = pages * i / vmm->nr_vcpus, end = pages * (i + 1) / vmm->nr_vcpus;

	block->self = (void *)(GUEST_VCPUS + i * (u64)GUEST_VCPU_SIZE);
	block->id = i;
	block->nonce = nonce;
	block->first_page = GUEST_DATA_FIRST_PAGE + first;
	block->nr_pages = end - first;
	block->gap_threshold = khz * GAP_THRESHOLD_US / 1000;
	block->tick_timeout = khz * TICK_TIMEOUT_US / 1000;
}

/*
 * A guest that is about to execute its first instruction. It sweeps its memory
 * up to @data_end.
 */
void vmm_load_guest(struct vmm *vmm, u64 nonce, u64 data_end)
{
	u64 image_size = guest_image_end - guest_image;

	arch_load_vm(vmm);
	must_be(GUEST_CODE + image_size <= GUEST_CODE_END, "%llu bytes", image_size);
	memcpy(vmm->ram + GUEST_CODE, guest_image, image_size);

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		give_share(vmm, i, nonce, data_end, guest_counter_khz(&vmm->vcpus[i]));
		arch_load_vcpu(&vmm->vcpus[i]);
	}
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

	run_where_guests_may();
	WRITE_ONCE(vcpu->tid, gettid());
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

static bool all_interruptible(const struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		if (!arch_vcpu_interruptible(&vmm->vcpus[i]))
			return false;
	return true;
}

/*
 * The same; but a guest that ran is run on for a moment where it was just being interrupted: it
 * could not be left the interrupts whose way across is a claim.
 */
void vmm_pause_for_capture(struct vmm *vmm)
{
	bool ran = vmm->vcpus[0].wanted;

	vmm_pause(vmm);
	for (vmm->pauses = 1; ran && vmm->pauses < PAUSES && !all_interruptible(vmm); vmm->pauses++) {
		vmm_run(vmm);
		poll_pause();
		vmm_pause(vmm);
	}
}

/* Tells of a vCPU that is run and makes no step, once; the host looks what its own CPUs do. */
static void note_if_still(struct vcpu *vcpu, enum vcpu_run_state state)
{
	u64 counter = READ_ONCE(vcpu->block->counter), now = now_us();

	if (state != VCPU_RUNNING || counter != vcpu->last_counter) {
		vcpu->last_counter = counter;
		vcpu->last_step_us = now;
	} else if (!vcpu->still && now - vcpu->last_step_us >= STILL_US) {
		vcpu->still = true;
		dialogue_line("# at guest-still");
		report_still(vcpu);
	}
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
		note_if_still(vcpu, state);
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

/* So many readings of its clock, of which one is looked at right after the guest took it. */
#define READINGS 50
#define READINGS_MS 2000

/*
 * By how much a running guest's counter is ahead of the machine's: what a guest has written down is
 * older than the machine's counter that is read next, so the most of many differences is the one
 * that is off by least. KVM's offset says what it should be, this is what the guest sees.
 */
void vmm_compare_clocks(struct vmm *vmm)
{
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		struct deadline deadline = deadline_in_ms(READINGS_MS);
		struct vcpu *vcpu = &vmm->vcpus[i];
		u64 last = 0;

		vcpu->clock_offset = S64_MIN;
		for (int readings = 0; readings < READINGS && !deadline_passed(deadline);) {
			u64 reading = READ_ONCE(vcpu->block->last_time);
			s64 ahead = reading - read_counter();

			readings += reading != last;
			last = reading;
			if (ahead > vcpu->clock_offset)
				vcpu->clock_offset = ahead;
		}
	}
}
