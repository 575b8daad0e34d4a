# SPDX-License-Identifier: GPL-2.0-only
GUEST_ARCH_CFLAGS := -mno-red-zone -ffixed-r12 -ffixed-r13 -ffixed-r14 -ffixed-r15 -fcf-protection=none
