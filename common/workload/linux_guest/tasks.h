/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's processes. Each is an ordinary process of its own, keeps its
 * results in memory shared with PID 1, and knows nothing of live updates.
 */
#ifndef TASKS_H
#define TASKS_H

#include <stdbool.h>
#include <stddef.h>

#include "types.h"

#define MAX_CPUS 8
#define PAGE_SIZE 4096ul
#define FILE_NAME "/tmp/file"
#define FILE_BLOCKS 1024
#define FILE_BLOCK_SIZE 4096
#define TCP_PORT 4242
#define NIC "eth0"

/* What has gone wrong in a process: how often, and the first time in words. */
struct faults {
	u64 count;
	char first[160];
};

/**
 * struct stamper - counts and stamps, every 10 ms
 * @count: number of stamps
 * @gap_mono_ns: the longest time between two stamps, by CLOCK_MONOTONIC
 * @gap_real_ns: the same by CLOCK_REALTIME
 * @gap_tsc: the same by the TSC, in ticks
 * @gap_at: value of @count before that gap (of @gap_mono_ns)
 * @faults: clocks that went back
 */
struct stamper {
	u64 count;
	u64 gap_mono_ns;
	u64 gap_real_ns;
	u64 gap_tsc;
	u64 gap_at;
	struct faults faults;
};

/**
 * struct checker - verifies and rewrites a pattern over most of the guest's RAM
 * @pages: pages under test
 * @version: version that this sweep writes
 * @steps: pages verified so far, in all sweeps
 */
struct checker {
	u64 pages;
	u64 version;
	u64 steps;
	struct faults faults;
};

/* Bytes that went through one end of the TCP connection, and their checksum. */
struct tcp_end {
	u64 bytes;
	u64 sum;
	struct faults faults;
};

/* Blocks that were appended to the file, and how many were read back. */
struct writer {
	u64 blocks;
	u64 verified;
	struct faults faults;
};

/**
 * struct nic - what came through the network device
 * @up: its link is there, and it is read
 * @frames: frames that came, each once
 * @next: number of the frame that is expected next
 * @corrupt: set by PID 1 for a control: one bit of the next frame is flipped
 */
struct nic {
	volatile u64 up;
	volatile u64 frames;
	u64 next;
	u64 lost;
	u64 repeated;
	u64 damaged;
	volatile bool corrupt;
	struct faults faults;
};

/**
 * struct talk - what was said over the connection to the host
 * @blocks: blocks that were asked, and answered
 * @next: number of the block that is expected next
 * @corrupt: set by PID 1 for a control: one bit of the next answer is flipped
 * @renew: the same, another connection takes the place of this one
 */
struct talk {
	u64 blocks;
	u64 next;
	volatile bool corrupt;
	volatile bool renew;
	struct faults faults;
};

struct shared {
	u64 nonce;
	/* Set by PID 1 for a control: the sender flips one bit. */
	volatile bool corrupt_tcp;
	struct stamper stamper[MAX_CPUS];
	struct checker checker;
	struct tcp_end receiver;
	struct tcp_end sender;
	struct writer writer;
	struct nic nic;
	struct talk talk;
};

extern struct shared *shared;

void __noreturn stamp(unsigned int cpu);
void __noreturn check_memory(void);
void __noreturn receive_tcp(void);
void __noreturn send_tcp(void);
void __noreturn write_file(void);
void __noreturn receive_frames(void);
void __noreturn talk_to_host(void);

/* nic.c */
bool nic_present(void);
u64 nic_counted(void);

/* corrupt.c */
bool corrupt_something(const char *what);

/* modules.c */
int load_modules(char *failed, size_t size);

/* kernel_says.c */
void say_interrupts(void (*say)(const char *format, ...));
bool kernel_complains(char *text, size_t size);

/* pattern.c */
u64 mix(u64 value);
void fill_pattern(u64 *words, size_t count, u64 seed);
size_t first_difference(const u64 *words, size_t count, u64 seed);
void __printf(2, 3) fault(struct faults *faults, const char *format, ...);
void sleep_ms(unsigned int ms);
void __noreturn __printf(1, 2) die(const char *format, ...);

#endif
