/* SPDX-License-Identifier: GPL-2.0-only */
/* Documentation/fault-injection: the N-th thing of this thread that may fail does. */
#ifndef FAIL_NTH_H
#define FAIL_NTH_H

#include "workload.h"

/* What may fail: what is counted, and fails as the N-th. Copies always are. */
enum fail_kind {
	FAIL_COPY,
	FAIL_SLAB,
	FAIL_PAGE,
	FAIL_ANY,
	NR_FAIL_KINDS,
};

extern const char * const fail_kind_names[NR_FAIL_KINDS];

void fail_nth_open(void);
void fail_nth_kind(enum fail_kind kind);
void fail_nth_arm(unsigned int n);
unsigned int fail_nth_disarm(void);

#endif
