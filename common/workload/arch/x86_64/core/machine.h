/* SPDX-License-Identifier: GPL-2.0-only */
/* The machine: two 8250; console and dialogue. */
#ifndef MACHINE_H
#define MACHINE_H

#define DIALOGUE_TTY	"/dev/ttyS1"
/* Any page of ordinary memory. */
#define ORDINARY_PAGE	0x2000000ul

#endif
