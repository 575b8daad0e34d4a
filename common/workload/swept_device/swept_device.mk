# SPDX-License-Identifier: GPL-2.0-only
# For sweeps of failing calls with devices: their Makefile includes this file before workload.mk.

swept-device-dir := $(dir $(lastword $(MAKEFILE_LIST)))

stage-src += $(notdir $(wildcard $(swept-device-dir)*.c))
stage-inc += -I$(swept-device-dir)
vpath %.c $(swept-device-dir)

include $(swept-device-dir)../device/device.mk
include $(swept-device-dir)../sweep/sweep.mk
