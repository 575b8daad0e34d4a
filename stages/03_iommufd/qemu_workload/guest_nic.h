/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The device that the guest drives, as this program sees it beside the guest:
 * it looks at registers and writes to one that nobody uses.
 */
#ifndef GUEST_NIC_H
#define GUEST_NIC_H

#include "igb.h"

#define DEVICE "0000:01:00.0"

void guest_nic_map(struct igb *igb);
void guest_nic_mark(struct igb *igb);
void guest_nic_report_ring(struct igb *igb);

#endif
