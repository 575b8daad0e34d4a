# SPDX-License-Identifier: GPL-2.0-only
# For stages that drive an igb through vfio and iommufd: their Makefile includes this file
# before vm.mk or workload.mk.

device-dir := $(dir $(lastword $(MAKEFILE_LIST)))

stage-src += $(notdir $(wildcard $(device-dir)*.c))
stage-inc += -I$(device-dir)
vpath %.c $(device-dir)
