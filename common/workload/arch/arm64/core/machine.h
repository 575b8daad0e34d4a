/* SPDX-License-Identifier: GPL-2.0-only */
/* The machine: two PL011; console and dialogue. */
#ifndef MACHINE_H
#define MACHINE_H

#define DIALOGUE_TTY	"/dev/ttyAMA1"
/* Any page of ordinary memory. */
#define ORDINARY_PAGE	0x48000000ul
/* b . */
#define MACHINE_ENDS	"\x00\x00\x00\x14"

#endif
