// SPDX-License-Identifier: GPL-2.0-only
/*
 * Register numbers and bits are those of the Intel 82576 datasheet. Nothing here
 * sends.
 */
#include "igb.h"

#define IGB_CTRL 0x0000
#define IGB_CTRL_SLU 0x00000040u
#define IGB_CTRL_RST 0x04000000u
#define IGB_STATUS 0x0008
#define IGB_STATUS_LU 0x00000002u
#define IGB_MDIC 0x0020
#define IGB_MDIC_REG_SHIFT 16
#define IGB_MDIC_PHY_1 (1u << 21)
#define IGB_MDIC_WRITE 0x04000000u
#define IGB_MDIC_READY 0x10000000u
#define IGB_ICR 0x00c0
#define IGB_CAUSE_LINK 0x00000004u
#define IGB_ICS 0x00c8
#define IGB_IMS 0x00d0
#define IGB_IMC 0x00d8
#define IGB_RCTL 0x0100
#define IGB_RCTL_ENABLE 0x00000002u
#define IGB_RCTL_UNICAST_PROMISC 0x00000008u
#define IGB_RCTL_MULTICAST_PROMISC 0x00000010u
#define IGB_RCTL_BROADCAST 0x00008000u
#define IGB_RCTL_STRIP_CRC 0x04000000u
#define IGB_EIMC 0x1528
#define IGB_GPRC 0x4074
/* Receive address 15: unused, and a scratch register as long as AV is clear. */
#define IGB_RAL15 0x5478
#define IGB_RDBAL0 0xc000
#define IGB_RDBAH0 0xc004
#define IGB_RDLEN0 0xc008
#define IGB_SRRCTL0 0xc00c
#define IGB_SRRCTL_ADV_ONE_BUFFER 0x02000000u
#define IGB_RDH0 0xc010
#define IGB_RXDCTL0 0xc028
#define IGB_RXDCTL_ENABLE 0x02000000u

#define PHY_CONTROL 0
#define PHY_CONTROL_AUTONEG 0x1000u
#define PHY_CONTROL_RESTART_AUTONEG 0x0200u

u32 igb_read(const struct igb *igb, u32 reg)
{
	return *(volatile u32 *)(igb->bar0 + reg);
}

void igb_write(const struct igb *igb, u32 reg, u32 value)
{
	*(volatile u32 *)(igb->bar0 + reg) = value;
}

static int wait_for(const struct igb *igb, u32 reg, u32 mask, u32 value)
{
	struct deadline deadline = deadline_in_ms(5000);

	while ((igb_read(igb, reg) & mask) != value) {
		if (deadline_passed(deadline))
			return -ETIMEDOUT;
		poll_pause();
	}
	return 0;
}

int igb_reset(const struct igb *igb)
{
	int ret;

	igb_write(igb, IGB_CTRL, igb_read(igb, IGB_CTRL) | IGB_CTRL_RST);
	/* The datasheet wants a millisecond before anything is looked at. */
	poll_pause();
	ret = wait_for(igb, IGB_CTRL, IGB_CTRL_RST, 0);
	igb_write(igb, IGB_IMC, ~0u);
	igb_write(igb, IGB_EIMC, ~0u);
	return ret;
}

/* QEMU's link comes up only at the end of an autonegotiation. */
int igb_link_up(const struct igb *igb)
{
	int ret;

	igb_write(igb, IGB_CTRL, igb_read(igb, IGB_CTRL) | IGB_CTRL_SLU);
	igb_write(igb, IGB_MDIC,
		  PHY_CONTROL_AUTONEG | PHY_CONTROL_RESTART_AUTONEG |
		  (PHY_CONTROL << IGB_MDIC_REG_SHIFT) | IGB_MDIC_PHY_1 | IGB_MDIC_WRITE);
	ret = wait_for(igb, IGB_MDIC, IGB_MDIC_READY, IGB_MDIC_READY);
	if (ret < 0)
		return ret;
	return wait_for(igb, IGB_STATUS, IGB_STATUS_LU, IGB_STATUS_LU);
}

/* The ring is filled in, and stays empty for the device until its tail moves. */
void igb_rx_start(const struct igb *igb, u64 ring_pa)
{
	igb_write(igb, IGB_RDBAL0, (u32)ring_pa);
	igb_write(igb, IGB_RDBAH0, ring_pa >> 32);
	igb_write(igb, IGB_RDLEN0, igb->count * sizeof(union igb_rx_desc));
	igb_write(igb, IGB_SRRCTL0, IGB_SRRCTL_ADV_ONE_BUFFER | RING_BUFFER_SIZE / 1024);
	igb_write(igb, IGB_RDH0, 0);
	igb_write(igb, IGB_RDT0, 0);
	igb_write(igb, IGB_RXDCTL0, IGB_RXDCTL_ENABLE);
	igb_write(igb, IGB_RCTL,
		  IGB_RCTL_ENABLE | IGB_RCTL_UNICAST_PROMISC | IGB_RCTL_MULTICAST_PROMISC |
		  IGB_RCTL_BROADCAST | IGB_RCTL_STRIP_CRC);
}

void igb_rx_enable(const struct igb *igb, bool on)
{
	u32 rctl = igb_read(igb, IGB_RCTL) & ~IGB_RCTL_ENABLE;

	igb_write(igb, IGB_RCTL, on ? rctl | IGB_RCTL_ENABLE : rctl);
}

void igb_rx_set_tail(const struct igb *igb, u32 tail)
{
	/* The descriptors up to the tail before the tail. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	igb_write(igb, IGB_RDT0, tail);
}

u32 igb_rx_head(const struct igb *igb)
{
	return igb_read(igb, IGB_RDH0);
}

u32 igb_rx_tail(const struct igb *igb)
{
	return igb_read(igb, IGB_RDT0);
}

/* Reading clears the counter. */
u32 igb_rx_good_packets(const struct igb *igb)
{
	return igb_read(igb, IGB_GPRC);
}

void igb_set_scratch(const struct igb *igb, u32 value)
{
	igb_write(igb, IGB_RAL15, value);
}

void igb_ring_state(const struct igb *igb, struct igb_ring_state *state)
{
	*state = (struct igb_ring_state){
		.rdbal = igb_read(igb, IGB_RDBAL0),
		.rdbah = igb_read(igb, IGB_RDBAH0),
		.rdlen = igb_read(igb, IGB_RDLEN0),
		.rctl = igb_read(igb, IGB_RCTL),
		.rxdctl = igb_read(igb, IGB_RXDCTL0),
		.srrctl = igb_read(igb, IGB_SRRCTL0),
		.scratch = igb_read(igb, IGB_RAL15),
	};
}

/* Whichever way interrupts take: one that nothing has caused. All that was is forgotten first. */
void igb_interrupt(const struct igb *igb)
{
	(void)igb_read(igb, IGB_ICR);
	igb_write(igb, IGB_IMS, IGB_CAUSE_LINK);
	igb_write(igb, IGB_ICS, IGB_CAUSE_LINK);
}

/* It is over, and no other one comes. */
void igb_interrupt_end(const struct igb *igb)
{
	igb_write(igb, IGB_IMC, ~0u);
	(void)igb_read(igb, IGB_ICR);
}
