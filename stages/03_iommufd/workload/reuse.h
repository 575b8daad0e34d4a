/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef REUSE_H
#define REUSE_H

#include "nic.h"

void reuse_unmapped(struct nic *nic);

#endif
