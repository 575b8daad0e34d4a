# SPDX-License-Identifier: GPL-2.0-only
# What a kernel says that it has: a Makefile includes this file before vm.mk or workload.mk.

ledger-dir := $(dir $(lastword $(MAKEFILE_LIST)))

stage-src += $(notdir $(wildcard $(ledger-dir)*.c))
stage-inc += -I$(ledger-dir)
vpath %.c $(ledger-dir)
