/* SPDX-License-Identifier: GPL-2.0-only */
/* The descriptors of a QEMU that has become the program which cpr-exec starts. */
#ifndef TAKE_H
#define TAKE_H

#include <sys/types.h>

#include "handover.h"

#define HELPER "/init"

size_t list_memfds(pid_t qemu, int *numbers, size_t most);
int take_file(pid_t qemu, int number);
int take_state(pid_t qemu, struct cpr_state *state);
void take_files(pid_t qemu, struct handover *handover, int *files);

#endif
