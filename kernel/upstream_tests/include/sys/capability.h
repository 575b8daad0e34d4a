/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of libcap as tools/testing/selftests/iommu uses, so that building it asks for no
 * further package.
 */
#ifndef SYS_CAPABILITY_H
#define SYS_CAPABILITY_H

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef int cap_value_t;
typedef enum { CAP_EFFECTIVE } cap_flag_t;
typedef enum { CAP_CLEAR, CAP_SET } cap_flag_value_t;
typedef struct caps {
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
} *cap_t;

static inline cap_t cap_get_proc(void)
{
	static struct caps caps;

	caps.header.version = _LINUX_CAPABILITY_VERSION_3;
	caps.header.pid = 0;
	return syscall(SYS_capget, &caps.header, caps.data) ? (cap_t)0 : &caps;
}

static inline int cap_set_flag(cap_t caps, cap_flag_t flag, int count, const cap_value_t *values,
			       cap_flag_value_t value)
{
	(void)flag;
	for (int i = 0; i < count; i++) {
		unsigned int *word = &caps->data[CAP_TO_INDEX(values[i])].effective;
		unsigned int mask = CAP_TO_MASK(values[i]);

		*word = value == CAP_SET ? *word | mask : *word & ~mask;
	}
	return 0;
}

static inline int cap_set_proc(cap_t caps)
{
	return syscall(SYS_capset, &caps->header, caps->data);
}

static inline int cap_free(cap_t caps)
{
	(void)caps;
	return 0;
}

#endif
