/* SPDX-License-Identifier: GPL-2.0-only */
/* The end of a device that was taken over: whoever has it lets go of all of it. */
#ifndef RELEASE_H
#define RELEASE_H

#include "nic.h"

void release_translation(struct nic *nic);
void release_device(struct nic *nic);

#endif
