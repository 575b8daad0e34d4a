// SPDX-License-Identifier: GPL-2.0-only
/* Stage 1's guest does nothing but sweep its memory. */
#include "guest.h"

void guest_main(struct guest_vcpu *block)
{
	guest_start(block);
	for (;;)
		guest_step();
}
