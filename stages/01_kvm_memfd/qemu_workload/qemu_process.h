/* SPDX-License-Identifier: GPL-2.0-only */
/* QEMU as a child process. It is driven from the host, over a virtio port of its own. */
#ifndef QEMU_PROCESS_H
#define QEMU_PROCESS_H

#include <sys/types.h>

#include "workload.h"

/**
 * struct qemu_config - what a QEMU is started with
 * @qmp: name of the virtio port that is to be its monitor
 * @ram_fd: memfd with the guest's RAM; a number that is no open file is left to QEMU to refuse
 * @ram_size: of the guest's RAM, in bytes
 * @state_fd: memfd that it writes its state to, or reads it from
 * @vcpus: number of vCPUs
 * @nonce: for the guest's command line
 * @stopped: does not run the guest until it is told to
 * @incoming: waits for a state
 */
struct qemu_config {
	const char *qmp;
	int ram_fd;
	u64 ram_size;
	int state_fd;
	u64 vcpus;
	u64 nonce;
	bool stopped;
	bool incoming;
};

void qemu_mount(void);
void qemu_disk_mkfs(const char *device);
pid_t qemu_start(const struct qemu_config *config);
bool qemu_ended(pid_t pid, u64 timeout_ms);

#endif
