/* SPDX-License-Identifier: GPL-2.0-only */
/* The receive side of an Intel 82576 (igb), driven by polling. */
#ifndef IGB_H
#define IGB_H

#include "ring.h"
#include "workload.h"

/**
 * struct igb - one device and its receive ring
 * @bar0: mapping of the registers
 * @count: number of descriptors, a multiple of 8
 */
struct igb {
	volatile u8 *bar0;
	u32 count;
};

/* What must be the same on both sides of a kexec. */
struct igb_ring_state {
	u32 rdbal, rdbah, rdlen, rctl, rxdctl, srrctl, scratch;
};

#define IGB_BAR0_SIZE 0x20000

u32 igb_read(const struct igb *igb, u32 reg);
void igb_write(const struct igb *igb, u32 reg, u32 value);
int igb_reset(const struct igb *igb);
int igb_link_up(const struct igb *igb);
void igb_rx_start(const struct igb *igb, u64 ring_pa);
void igb_rx_enable(const struct igb *igb, bool on);
void igb_rx_set_tail(const struct igb *igb, u32 tail);
u32 igb_rx_head(const struct igb *igb);
u32 igb_rx_tail(const struct igb *igb);
u32 igb_rx_good_packets(const struct igb *igb);
void igb_set_scratch(const struct igb *igb, u32 value);
void igb_interrupt(const struct igb *igb);
void igb_interrupt_end(const struct igb *igb);
void igb_ring_state(const struct igb *igb, struct igb_ring_state *state);

/* igb_report.c */
void report_vfio_config(int device);
void report_vfio_info(int device);
void report_let_go(const char *bdf);
void igb_report(const struct igb *igb, const char *bdf);
void igb_report_interrupts(const struct igb *igb, int device);

#endif
