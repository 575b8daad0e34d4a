# SPDX-License-Identifier: GPL-2.0-only
# Atomics out of line would be calls into a library.
GUEST_ARCH_CFLAGS := -ffixed-x19 -ffixed-x20 -ffixed-x21 -ffixed-x22 -mno-outline-atomics \
		     -mbranch-protection=none -mstrict-align
