/* SPDX-License-Identifier: GPL-2.0-only */
/* The machine: two 8250; console and dialogue. */
#ifndef MACHINE_H
#define MACHINE_H

#define DIALOGUE_TTY	"/dev/ttyS1"
/* Any page of ordinary memory. */
#define ORDINARY_PAGE	0x2000000ul
/* mov $0xcf9, %dx; mov $6, %al; out %al, %dx; 1: hlt; jmp 1b: a reset by the chipset */
#define MACHINE_ENDS	"\x66\xba\xf9\x0c\xb0\x06\xee\xf4\xeb\xfd"

#endif
