// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's GICv3. There is no ITS: nothing in the guest sends a message, so there are no LPIs,
 * and neither PROPBASER and PENDBASER nor the tables behind them.
 */
#include <sys/ioctl.h>

#include "guest_map.h"
#include "vm_state.h"

struct range {
	u32 offset, words;
};

/* GICv3 architecture specification, 12.8 and 12.10. */
static const struct range distributor[] = {
	{ 0x0000, 1 },			/* CTLR */
	{ 0x0010, 1 },			/* STATUSR */
	{ 0x0084, 1 },			/* IGROUPR */
	{ 0x0104, 1 },			/* ISENABLER */
	{ 0x0204, 1 },			/* ISPENDR */
	{ 0x0304, 1 },			/* ISACTIVER */
	{ 0x0420, 8 },			/* IPRIORITYR */
	{ 0x0c08, 2 },			/* ICFGR */
	{ 0x6100, 64 },			/* IROUTER */
};

static const struct range redistributor[] = {
	{ 0x00000, 1 },			/* CTLR */
	{ 0x00010, 2 },			/* STATUSR, WAKER */
	{ 0x10080, 1 },			/* IGROUPR0 */
	{ 0x10100, 1 },			/* ISENABLER0 */
	{ 0x10200, 1 },			/* ISPENDR0 */
	{ 0x10300, 1 },			/* ISACTIVER0 */
	{ 0x10400, 8 },			/* IPRIORITYR */
	{ 0x10c00, 2 },			/* ICFGR */
};

#define ICC(op0, op1, crn, crm, op2) \
	((op0) << 14 | (op1) << 11 | (crn) << 7 | (crm) << 3 | (op2))

/* SRE before the others, which depend on it. */
static const u16 cpu_interface[VGIC_CPU_REGISTERS] = {
	ICC(3, 0, 12, 12, 5),		/* SRE_EL1 */
	ICC(3, 0, 12, 12, 4),		/* CTLR_EL1 */
	ICC(3, 0, 4, 6, 0),		/* PMR_EL1 */
	ICC(3, 0, 12, 8, 3),		/* BPR0_EL1 */
	ICC(3, 0, 12, 12, 3),		/* BPR1_EL1 */
	ICC(3, 0, 12, 8, 4),		/* AP0R0_EL1 */
	ICC(3, 0, 12, 9, 0),		/* AP1R0_EL1 */
	ICC(3, 0, 12, 12, 6),		/* IGRPEN0_EL1 */
	ICC(3, 0, 12, 12, 7),		/* IGRPEN1_EL1 */
};

static void set_attribute(int fd, u32 group, u64 attr, void *value)
{
	struct kvm_device_attr attribute = { .group = group, .attr = attr, .addr = (u64)value };

	must(sys(ioctl(fd, KVM_SET_DEVICE_ATTR, &attribute)));
}

static void get_attribute(int fd, u32 group, u64 attr, void *value)
{
	struct kvm_device_attr attribute = { .group = group, .attr = attr, .addr = (u64)value };

	must(sys(ioctl(fd, KVM_GET_DEVICE_ATTR, &attribute)));
}

/* vCPUs of one cluster: affinity 0 is their number. */
static u64 of_vcpu(unsigned int vcpu, u64 attr)
{
	return (u64)vcpu << KVM_DEV_ARM_VGIC_V3_MPIDR_SHIFT | attr;
}

void vgic_create(struct vmm *vmm)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	u64 distributor_base = GUEST_GICD, redistributor_base = GUEST_GICR;
	u32 irqs = VGIC_IRQS;

	must(sys(ioctl(vmm->vm_fd, KVM_CREATE_DEVICE, &device)));
	vmm->irqchip_fd = device.fd;
	set_attribute(device.fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &irqs);
	set_attribute(device.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_DIST,
		      &distributor_base);
	set_attribute(device.fd, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_VGIC_V3_ADDR_TYPE_REDIST,
		      &redistributor_base);
	set_attribute(device.fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL);
}

typedef void access_fn(int fd, u32 group, u64 attr, void *value);

/* Each word of the ranges is read into, or written from, @words; how many there are. */
static u32 each_word(access_fn *access, int fd, u32 group, unsigned int vcpu,
		     const struct range *ranges, size_t count, u32 *words)
{
	u32 at = 0;

	for (size_t i = 0; i < count; i++)
		for (u32 word = 0; word < ranges[i].words; word++)
			access(fd, group, of_vcpu(vcpu, ranges[i].offset + 4 * word),
			       &words[at++]);
	return at;
}

static u64 level_info(unsigned int vcpu, unsigned int first)
{
	return of_vcpu(vcpu, VGIC_LEVEL_INFO_LINE_LEVEL
				     << KVM_DEV_ARM_VGIC_LINE_LEVEL_INFO_SHIFT | first);
}

static void each_vcpu(access_fn *access, int fd, unsigned int vcpu, struct vcpu_state *state)
{
	u32 words = each_word(access, fd, KVM_DEV_ARM_VGIC_GRP_REDIST_REGS, vcpu, redistributor,
			      ARRAY_SIZE(redistributor), state->redistributor);

	must_be(words <= VGIC_REDISTRIBUTOR_WORDS, "%u words", words);
	access(fd, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, level_info(vcpu, 0), &state->level);
	for (int i = 0; i < VGIC_CPU_REGISTERS; i++)
		access(fd, KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS, of_vcpu(vcpu, cpu_interface[i]),
		       &state->cpu_interface[i]);
}

static void each_of_all(access_fn *access, struct vmm *vmm, struct vm_devices *devices,
			struct vcpu_state *vcpus)
{
	u32 words = each_word(access, vmm->irqchip_fd, KVM_DEV_ARM_VGIC_GRP_DIST_REGS, 0,
			      distributor, ARRAY_SIZE(distributor), devices->distributor);

	must_be(words <= VGIC_DISTRIBUTOR_WORDS, "%u words", words);
	access(vmm->irqchip_fd, KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO, level_info(0, 32),
	       &devices->level);
	for (unsigned int i = 0; i < vmm->nr_vcpus; i++)
		each_vcpu(access, vmm->irqchip_fd, i, &vcpus[i]);
}

void vgic_capture(struct vmm *vmm, struct vm_devices *devices, struct vcpu_state *vcpus)
{
	each_of_all(get_attribute, vmm, devices, vcpus);
}

/* In a new vGIC nothing is enabled, pending or active: what is set to ones is all there is. */
void vgic_restore(struct vmm *vmm, const struct vm_devices *devices,
		  const struct vcpu_state *vcpus)
{
	each_of_all(set_attribute, vmm, (struct vm_devices *)devices,
		    (struct vcpu_state *)vcpus);
}
