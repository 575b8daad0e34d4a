# SPDX-License-Identifier: GPL-2.0-only
# For the programs of a sweep of damaged records: their Makefile includes this file before
# workload.mk.

damage-dir := $(dir $(lastword $(MAKEFILE_LIST)))

stage-src += $(notdir $(wildcard $(damage-dir)*.c))
stage-inc += -I$(damage-dir)
vpath %.c $(damage-dir)
