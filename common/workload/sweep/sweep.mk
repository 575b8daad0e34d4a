# SPDX-License-Identifier: GPL-2.0-only
# For the programs of a sweep of failing calls: their Makefile includes this file before
# workload.mk.

sweep-dir := $(dir $(lastword $(MAKEFILE_LIST)))

stage-src += $(notdir $(wildcard $(sweep-dir)*.c))
stage-inc += -I$(sweep-dir)
vpath %.c $(sweep-dir)

include $(sweep-dir)../ledger/ledger.mk
