/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's short type names, for the workloads and their freestanding guests. */
#ifndef WORKLOAD_TYPES_H
#define WORKLOAD_TYPES_H

#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;

#define S64_MIN (-0x7fffffffffffffffll - 1)

#define __noreturn __attribute__((__noreturn__))
#define __packed __attribute__((__packed__))
#define __aligned(n) __attribute__((__aligned__(n)))
#define __noinline __attribute__((__noinline__))
#define __cold __attribute__((__cold__))
#define __printf(a, b) __attribute__((__format__(__printf__, a, b)))

#define BIT(n) (1ul << (n))
#define BIT_ULL(n) (1ull << (n))
#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))

/* For memory that another CPU, or a guest, changes at the same time. */
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))

#include "counter.h"

#endif
