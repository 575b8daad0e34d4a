// SPDX-License-Identifier: GPL-2.0-only
/* All state of a paused VM but its RAM: out of KVM, and into a new VM. */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vm_state.h"

#define TPIDRRO_EL0 ARM64_SYS_REG(3, 3, 13, 0, 3)

#define TIMER_ISTATUS BIT_ULL(2)

union register_list {
	struct kvm_reg_list list;
	u8 space[sizeof(struct kvm_reg_list) + VM_STATE_REGISTERS * sizeof(u64)];
};

static u32 size_of(u64 id)
{
	return 1u << ((id & KVM_REG_SIZE_MASK) >> KVM_REG_SIZE_SHIFT);
}

/* Counters: what travels is their offset from the machine's, which runs through the kexec. */
static bool counts(u64 id)
{
	return id == KVM_REG_ARM_TIMER_CNT || id == KVM_REG_ARM_PTIMER_CNT;
}

void *vcpu_state_register(struct vcpu_state *vcpu, u64 id)
{
	u32 at = 0;

	for (u32 i = 0; i < vcpu->registers; at += size_of(vcpu->id[i++]))
		if (vcpu->id[i] == id)
			return vcpu->value + at;
	return NULL;
}

/* With SVE KVM gives the vector registers as the lower 128 bits of the Z registers. */
void *vcpu_state_vreg(struct vcpu_state *vcpu, unsigned int number)
{
	return vcpu_state_register(vcpu, VECTOR_REGISTER(number)) ?:
	       vcpu_state_register(vcpu, KVM_REG_ARM64_SVE_ZREG(number, 0));
}

static u64 core(const struct vcpu_state *vcpu, u64 id)
{
	const u64 *value = vcpu_state_register((struct vcpu_state *)vcpu, id);

	must_be(value, "register 0x%llx is not in the state", id);
	return *value;
}

u64 vcpu_state_steps(const struct vcpu_state *vcpu)
{
	return core(vcpu, GUEST_COUNTER_REGISTER);
}

u64 vcpu_state_checksum(const struct vcpu_state *vcpu)
{
	return core(vcpu, GUEST_CHECKSUM_REGISTER);
}

u64 vcpu_state_counter_offset(const struct vcpu_state *vcpu)
{
	return vcpu->counter_offset;
}

void vcpu_state_vector(const struct vcpu_state *vcpu, struct guest_vector *vector)
{
	const void *sum = vcpu_state_vreg((struct vcpu_state *)vcpu, 31);
	const void *fold = vcpu_state_vreg((struct vcpu_state *)vcpu, 30);

	must_be(sum && fold, "v30 and v31 are not in the state");
	*vector = (struct guest_vector){};
	memcpy(vector->sum, sum, 16);
	memcpy(vector->fold, fold, 16);
}

/* Every register that KVM names, and its value. */
static void capture_registers(struct vcpu *vcpu, struct vcpu_state *state)
{
	static union register_list known;
	u32 at = 0;

	known.list.n = VM_STATE_REGISTERS;
	must(sys(ioctl(vcpu->fd, KVM_GET_REG_LIST, &known)));
	state->registers = 0;
	for (u64 i = 0; i < known.list.n; i++) {
		u64 id = known.list.reg[i];
		struct kvm_one_reg reg = { .id = id, .addr = (u64)(state->value + at) };

		if (counts(id))
			continue;
		must_be(at + size_of(id) <= sizeof(state->value), "%llu registers are too large",
			known.list.n);
		must(sys(ioctl(vcpu->fd, KVM_GET_ONE_REG, &reg)));
		state->id[state->registers++] = id;
		at += size_of(id);
	}
}

void vcpu_state_read_back(struct vcpu *vcpu, struct vcpu_state *state)
{
	capture_registers(vcpu, state);
}

/* Of a timer's control ISTATUS is no state: whether its time has come by now. */
static bool same(struct vcpu_state *vcpu, u64 id, const void *value)
{
	const void *other = vcpu_state_register(vcpu, id);

	if (other && (id == KVM_REG_ARM_TIMER_CTL || id == KVM_REG_ARM_PTIMER_CTL))
		return !((*(const u64 *)other ^ *(const u64 *)value) & ~TIMER_ISTATUS);
	return other && !memcmp(other, value, size_of(id));
}

/*
 * Only what differs from a new vCPU's is written: what identifies the CPU is
 * on KVM's list to be read, and is refused where anything else is written.
 */
static void restore_registers(struct vcpu *vcpu, const struct vcpu_state *state,
			      struct refused_registers *refused)
{
	static struct vcpu_state fresh;
	u32 at = 0;

	capture_registers(vcpu, &fresh);
	for (u32 i = 0; i < state->registers; at += size_of(state->id[i++])) {
		struct kvm_one_reg reg = {
			.id = state->id[i],
			.addr = (u64)(state->value + at),
		};

		if (reg.id == TPIDRRO_EL0 && param_control("state-left-out"))
			continue;
		if (!same(&fresh, reg.id, state->value + at) &&
		    sys(ioctl(vcpu->fd, KVM_SET_ONE_REG, &reg)) < 0)
			refused->id[refused->count++] = reg.id;
	}
}

/* How many registers hold something else than what was to be restored; @first is one of them. */
static u32 count_unlike(struct vcpu *vcpu, const struct vcpu_state *state, u64 *first)
{
	static struct vcpu_state loaded;
	u32 at = 0, unlike = 0;

	capture_registers(vcpu, &loaded);
	for (u32 i = 0; i < state->registers; at += size_of(state->id[i++]))
		if (!same(&loaded, state->id[i], state->value + at) && !unlike++)
			*first = state->id[i];
	return unlike;
}

void vm_capture(struct vmm *vmm, struct vm_state *state)
{
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		struct vcpu *vcpu = &vmm->vcpus[i];
		struct vcpu_state *to = &state->vcpu[i];

		vcpu_features(vmm, &to->init);
		capture_registers(vcpu, to);
		must(sys(ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &to->events)));
		must(sys(ioctl(vcpu->fd, KVM_GET_MP_STATE, &to->mp_state)));
		to->counter_offset = vmm->counter_offset;
	}
	vgic_capture(vmm, &state->devices, state->vcpu);
}

static void report_unlike(struct vmm *vmm, const struct vm_state *state)
{
	u32 unlike = 0, registers = 0;
	char first[32] = "";
	u64 id = 0;

	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		registers += state->vcpu[i].registers;
		unlike += count_unlike(&vmm->vcpus[i], &state->vcpu[i], &id);
	}
	if (unlike)
		snprintf(first, sizeof(first), " 0x%llx", id);
	fact("restore.registers", "%u", registers);
	fact("restore.registers_unlike", "%u%s", unlike, first);
}

/* The words and registers of the vGIC that are not as they were. */
static void report_vgic_unlike(struct vmm *vmm, const struct vm_state *state)
{
	static struct vcpu_state loaded[GUEST_MAX_VCPUS];
	static struct vm_devices devices;
	u32 unlike = 0;

	vgic_capture(vmm, &devices, loaded);
	for (u32 word = 0; word < VGIC_DISTRIBUTOR_WORDS; word++)
		unlike += devices.distributor[word] != state->devices.distributor[word];
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		const struct vcpu_state *vcpu = &state->vcpu[i];

		for (u32 word = 0; word < VGIC_REDISTRIBUTOR_WORDS; word++)
			unlike += loaded[i].redistributor[word] != vcpu->redistributor[word];
		for (u32 number = 0; number < VGIC_CPU_REGISTERS; number++)
			unlike += loaded[i].cpu_interface[number] != vcpu->cpu_interface[number];
	}
	fact("restore.vgic_unlike", "%u", unlike);
}

/*
 * The offset before the timers, which are compared with the counter as soon as
 * they are set; the vGIC before the first vCPU runs.
 */
void vm_restore(struct vmm *vmm, const struct vm_state *state, struct refused_registers *refused)
{
	struct kvm_arm_counter_offset offset = { .counter_offset = -state->vcpu[0].counter_offset };

	vmm->counter_offset = state->vcpu[0].counter_offset;
	must(sys(ioctl(vmm->vm_fd, KVM_ARM_SET_COUNTER_OFFSET, &offset)));
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++) {
		const struct vcpu_state *from = &state->vcpu[i];
		struct vcpu *vcpu = &vmm->vcpus[i];
		struct kvm_vcpu_init init;

		vcpu_features(vmm, &init);
		must_be(!memcmp(&init, &from->init, sizeof(init)),
			"this KVM gives a vCPU other features: 0x%x, not 0x%x", init.features[0],
			from->init.features[0]);
		restore_registers(vcpu, from, refused);
		must(sys(ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &from->events)));
		must(sys(ioctl(vcpu->fd, KVM_SET_MP_STATE, &from->mp_state)));
	}
	vgic_restore(vmm, &state->devices, state->vcpu);
	report_unlike(vmm, state);
	report_vgic_unlike(vmm, state);
}

/* None are left for it on purpose: what the vGIC has pending is compared register by register. */
void report_pending(const struct vmm *vmm, const struct vm_state *state)
{
	(void)vmm;
	(void)state;
}
