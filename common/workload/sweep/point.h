/* SPDX-License-Identifier: GPL-2.0-only */
/* A point: one call, cut at its N-th chance to fail, and what was found after it. */
#ifndef POINT_H
#define POINT_H

#include "fail_nth.h"
#include "ledger.h"

/**
 * struct point - what is noted of a call that was cut
 * @call: its name
 * @kind: what is counted
 * @n: what fails, counted from 1; 0: nothing, to compare the others with
 * @ret: what the call gave: 0 or -errno
 * @left: what fail-nth read after it; 0 when something failed
 * @steps: name:result of each call after it
 * @before: the counters before the call's session and file were made
 * @fds: open descriptors at that time
 * @armed: the counters before the call itself
 * @armed_fds: open descriptors at that time
 * @left_over: what a call that failed has changed all the same; empty where it
 *             succeeded, or where a failure is final
 * @made: what one that succeeded has changed; empty where it failed
 */
struct point {
	const char *call, *kind;
	unsigned int n;
	int ret;
	unsigned int left;
	char steps[320];
	struct ledger_counters before, armed;
	unsigned int fds, armed_fds;
	char left_over[128], made[128];
};

void point_begin(struct point *point, const char *call, enum fail_kind kind, unsigned int n);
void point_arm(struct point *point);
int point_cut(struct point *point, int ret);
int point_cut_for_good(struct point *point, int ret);
void point_step(struct point *point, const char *name, int ret);
void point_say(const struct point *point);
void point_mark(const char *text);

#endif
