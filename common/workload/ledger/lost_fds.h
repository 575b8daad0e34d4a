/* SPDX-License-Identifier: GPL-2.0-only */
/* Descriptors that a call has reserved and never made: /proc/self/fd does not show them. */
#ifndef LOST_FDS_H
#define LOST_FDS_H

int lost_fds(void);

#endif
