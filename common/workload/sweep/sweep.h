/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Each call of a session's life, cut at each allocation and each copy from and
 * to userspace in it. Judged by the host (common/suites/sweep).
 *
 * stage.point=CALL:KIND:N has that point alone.
 */
#ifndef SWEEP_H
#define SWEEP_H

#include "point.h"

/* Kinds that are tried one by one: copies, slab objects, pages. */
#define SWEEP_KINDS FAIL_ANY

/**
 * struct call - one whose failures are tried in a life of its own each
 * @name: as it stands in the dialogue and in --point
 * @live: all that a session goes through, with that call cut
 */
struct call {
	const char *name;
	void (*live)(struct point *point, int luo_fd);
};

/**
 * struct last_call - one that goes through only once for each object: until then
 *		      each failure has to leave that as it was
 * @name: as it stands in the dialogue and in --point
 * @make: 0, a descriptor, or -errno
 * @look: notes what is to be seen of the object after a failure
 * @tried: points so far, by kind: another object goes on from there, where the
 *	   last one's call went through although something failed
 * @through: nothing more in it can fail
 */
struct last_call {
	const char *name;
	int (*make)(void *object);
	void (*look)(struct point *point, void *object);
	unsigned int tried[SWEEP_KINDS];
	bool through[SWEEP_KINDS];
};

void sweep_begin(void);
/* @most: by kind, how many points there can be; NULL: as many as it takes */
void sweep_calls(const struct call *calls, const unsigned int *most, int luo_fd);
int sweep_last_call(struct last_call *call, enum fail_kind kind, void *object);
void sweep_say_last_call(const struct last_call *call);
int sweep_reboot(int luo_fd);

/* Whether that call is not asked for; which point is, or 0 for all of them. */
bool sweep_leaves_out(const char *call, enum fail_kind kind);
unsigned int sweep_only_point(void);

#endif
