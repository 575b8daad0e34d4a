/* SPDX-License-Identifier: GPL-2.0-only */
/* Set-up (b): the device is assigned to a KVM guest, which drives the ring. */
#ifndef ASSIGNED_H
#define ASSIGNED_H

#include "nic.h"

void assigned_start(struct nic *nic);
void assigned_preserve(const struct nic *nic, int session);
void assigned_pause(const struct nic *nic);
bool assigned_retrieve(const struct nic *nic, int session);
void assigned_go_on(struct nic *nic);
void assigned_end(const struct nic *nic);

#endif
