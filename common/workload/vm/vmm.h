/* SPDX-License-Identifier: GPL-2.0-only */
/* The VMM: one VM whose RAM is a memfd, one thread per vCPU. */
#ifndef VMM_H
#define VMM_H

#include <pthread.h>

#include <linux/kvm.h>

#include "guest_ram.h"

enum vcpu_run_state {
	VCPU_PARKED,
	VCPU_RUNNING,
	/* KVM_RUN came back although nobody asked: see vmm_check() */
	VCPU_STOPPED,
};

struct vcpu {
	int fd;
	struct kvm_run *run;
	/* in guest RAM */
	struct guest_vcpu *block;
	pthread_t thread;
	pid_t tid;
	struct vmm *vmm;
	bool wanted;
	enum vcpu_run_state state;
	int error;
	/* guest's counter - machine's, see vmm_compare_clocks() */
	s64 clock_offset;
	/* see note_if_still() */
	u64 last_counter;
	u64 last_step_us;
	bool still;
};

struct vmm {
	int kvm_fd;
	int vm_fd;
	int ram_fd;
	u8 *ram;
	u64 ram_size;
	unsigned int nr_vcpus;
	struct vcpu vcpus[GUEST_MAX_VCPUS];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* to be set in the vCPUs that are loaded: see arch_load_vm() */
	u64 counter_offset;
	/* how often it took to pause all vCPUs for their capture */
	unsigned int pauses;
	/* fd of the interrupt controller, where that is a device of KVM's */
	int irqchip_fd;
};

/* guest_image.S */
extern const u8 guest_image[], guest_image_end[];

/* vmm.c */
void vmm_create(struct vmm *vmm, int ram_fd, u8 *ram, u64 ram_size, unsigned int nr_vcpus);
void vmm_load_guest(struct vmm *vmm, u64 nonce, u64 data_end);
void vmm_start_threads(struct vmm *vmm);
void vmm_run(struct vmm *vmm);
void vmm_pause(struct vmm *vmm);
void vmm_pause_for_capture(struct vmm *vmm);
void vmm_check(struct vmm *vmm);
void vmm_read_counters(const struct vmm *vmm, u64 *counters);
u64 vmm_sweep_timeout_ms(const struct vmm *vmm);
void vmm_wait_sweep(struct vmm *vmm, const u64 *from, u64 timeout_ms);
u64 vmm_sweeps_since(const struct vmm *vmm, const u64 *from);
u64 vmm_steps(const struct vmm *vmm);
void vmm_compare_clocks(struct vmm *vmm);

/* still.c */
void report_still(const struct vcpu *vcpu);

/* What an architecture gives to the VMM: arch/MACHINE/vm/vm.c */

/* Bytes of RAM, of @size, that lie in one piece from where guest-physical RAM begins. */
u64 low_ram(u64 size);
u64 ram_to_gpa(u64 offset);
/* Before memory and vCPUs; of each vCPU; and when all of these are there. */
void arch_create_vm(struct vmm *vmm);
void arch_create_vcpu(struct vcpu *vcpu);
void arch_create_irqchip(struct vmm *vmm);
/* A guest's tables; and the registers for its first instruction. */
void arch_load_vm(struct vmm *vmm);
void arch_load_vcpu(struct vcpu *vcpu);
u64 guest_counter_khz(struct vcpu *vcpu);
/* Of one that is paused: pending.c could give it interrupts. */
bool arch_vcpu_interruptible(const struct vcpu *vcpu);
void vmm_prefault(struct vmm *vmm);

#include "vm_arch.h"

#endif
