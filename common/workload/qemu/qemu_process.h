/* SPDX-License-Identifier: GPL-2.0-only */
/* QEMU as a child process. It is driven from the host, over a virtio port of its own. */
#ifndef QEMU_PROCESS_H
#define QEMU_PROCESS_H

#include <sys/types.h>

#include "workload.h"

/* Where QEMU writes what it is asked to trace. */
#define QEMU_TRACE "/tmp/qemu-trace.log"
/* The environment variable that names the file with QEMU's CPR state, after cpr-exec. */
#define QEMU_CPR_STATE "QEMU_CPR_EXEC_STATE"

/* A descriptor that a QEMU is to have, and the number by which it knows it. */
struct qemu_fd {
	int fd;
	int number;
};

/**
 * struct qemu_config - what a QEMU is started with
 * @qmp: name of the virtio port that is to be its monitor
 * @ram_fd: memfd with the guest's RAM; a number that is no open file is left to QEMU to refuse;
 *	-1: QEMU makes one itself, as it has to for CPR
 * @ram_size: of the guest's RAM, in bytes
 * @state_fd: memfd that it writes its state to, or reads it from
 * @vcpus: number of vCPUs
 * @nonce: for the guest's command line
 * @stopped: does not run the guest until it is told to
 * @incoming: waits for a state
 * @nic: PCI address of a device of this machine that is passed through; NULL for none
 * @q35: the guest is a PC with firmware, no microvm
 * @fds: further descriptors, which QEMU finds by numbers that are in its CPR state
 * @nr_fds: how many
 * @cpr_state: which of those numbers that state has itself; 0 for none
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
	const char *nic;
	bool q35;
	const struct qemu_fd *fds;
	size_t nr_fds;
	int cpr_state;
};

void qemu_mount(void);
void qemu_read_ahead(void);
void qemu_disk_mkfs(const char *device);
pid_t qemu_start(const struct qemu_config *config);
bool qemu_ended(pid_t pid, u64 timeout_ms);

#endif
