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
	struct vmm *vmm;
	bool wanted;
	enum vcpu_run_state state;
	int error;
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
};

/* guest_image.S */
extern const u8 guest_image[], guest_image_end[];

/* vmm.c */
u64 ram_to_gpa(u64 offset);
void vmm_create(struct vmm *vmm, int ram_fd, u8 *ram, u64 ram_size, unsigned int nr_vcpus);
void vcpu_tsc_offset(struct vcpu *vcpu, unsigned long request, u64 *offset);
void vmm_load_guest(struct vmm *vmm, u64 nonce, u64 data_end);
void vmm_prefault(struct vmm *vmm);
void vmm_start_threads(struct vmm *vmm);
void vmm_run(struct vmm *vmm);
void vmm_pause(struct vmm *vmm);
void vmm_check(struct vmm *vmm);
void vmm_read_counters(const struct vmm *vmm, u64 *counters);
u64 vmm_sweep_timeout_ms(const struct vmm *vmm);
void vmm_wait_sweep(struct vmm *vmm, const u64 *from, u64 timeout_ms);
u64 vmm_sweeps_since(const struct vmm *vmm, const u64 *from);
u64 vmm_steps(const struct vmm *vmm);

#endif
