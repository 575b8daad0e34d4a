/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where the guest has what is assigned to it. Its virtual addresses from 1 GiB on are the
 * memory of the ring, as it lies in its file; the guest-physical ones are the device's
 * IOVAs. The device's registers are in the last 2 MiB of that GiB.
 */
#ifndef GUEST_MAP_H
#define GUEST_MAP_H

#define GUEST_RING (1ull << 30)
#define GUEST_BAR (GUEST_RING + 511 * (2ull << 20))
#define GUEST_BAR_GPA 0xd0000000ull

#endif
