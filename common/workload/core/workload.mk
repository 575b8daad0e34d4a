# SPDX-License-Identifier: GPL-2.0-only
# Rules that the stages' workload Makefiles share. A Makefile sets stage-src
# (and stage-obj, stage-inc for what it builds itself) and includes this file;
# the result is $(O)/init. UAPI is an INSTALL_HDR_PATH of the kernel under test.

ifeq ($(O),)
$(error O=<output directory> is missing)
endif
ifeq ($(UAPI),)
$(error UAPI=<headers_install directory> is missing)
endif

common-dir := $(dir $(lastword $(MAKEFILE_LIST)))
common-src := $(wildcard $(common-dir)*.c)

# Of the machine: the architecture, and the prefix of a cross compiler.
MACHINE ?= x86_64
CC := $(CROSS)gcc
OBJCOPY := $(CROSS)objcopy
arch-dir := $(common-dir)../arch/$(MACHINE)/
arch-src := $(wildcard $(arch-dir)core/*.c)
WARNINGS := -Wall -Wextra -Werror -Wmissing-prototypes
CFLAGS := -std=gnu11 -O2 $(WARNINGS) -D_GNU_SOURCE -pthread \
	  -I$(UAPI)/include -I$(common-dir) -I$(arch-dir)core $(stage-inc) -I$(CURDIR)

objects := $(patsubst %.c,$(O)/common/%.o,$(notdir $(common-src) $(arch-src))) \
	   $(patsubst %.c,$(O)/%.o,$(stage-src)) $(stage-obj)

all: $(O)/init

$(O)/init: $(objects)
	$(CC) $(CFLAGS) -static -o $@ $(objects)

$(O)/common/%.o: $(common-dir)%.c | $(O)/common
	$(CC) $(CFLAGS) -MMD -c -o $@ $<

$(O)/common/%.o: $(arch-dir)core/%.c | $(O)/common
	$(CC) $(CFLAGS) -MMD -c -o $@ $<

$(O)/%.o: %.c | $(O)
	$(CC) $(CFLAGS) -MMD -c -o $@ $<

$(O) $(O)/common:
	mkdir -p $@

-include $(wildcard $(O)/*.d $(O)/common/*.d)

.PHONY: all
