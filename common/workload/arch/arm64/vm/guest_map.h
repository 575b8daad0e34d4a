/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's memory map on arm64. Its virtual addresses are offsets into the RAM memfd, and at
 * GUEST_DEVICES, the last GiB of the 39 bits, are the lowest guest-physical addresses.
 */
#ifndef GUEST_MAP_H
#define GUEST_MAP_H

#define GUEST_RAM_BASE		0x40000000ull
#define GUEST_DEVICES		0x7fc0000000ull
#define GUEST_GICD		0x08000000ull
#define GUEST_GICR		0x080a0000ull
#define GUEST_GICR_SIZE		0x20000ull

#endif
