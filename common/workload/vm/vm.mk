# SPDX-License-Identifier: GPL-2.0-only
# For stages that run a KVM guest: the VMM, and a guest program linked from the
# memory sweep here and the stage's own guest-src. Includes workload.mk.

vm-dir := $(dir $(lastword $(MAKEFILE_LIST)))
MACHINE ?= x86_64
vm-arch-dir := $(vm-dir)../arch/$(MACHINE)/
vm-src := $(wildcard $(vm-dir)*.c $(vm-arch-dir)vm/*.c)

stage-inc += -I$(vm-dir) -I$(vm-arch-dir)vm
stage-obj += $(patsubst %.c,$(O)/vm/%.o,$(notdir $(vm-src))) $(O)/guest_image.o

include $(vm-dir)../core/workload.mk

# Sets GUEST_ARCH_CFLAGS: the compiler keeps off vector registers, and off the
# general ones that the guest has for its whole life.
include $(vm-arch-dir)guest/guest.mk

# The guest has no library and no data of its own.
GUEST_CFLAGS := -std=gnu11 -O2 $(WARNINGS) -ffreestanding -nostdlib -static -fno-pic -no-pie \
		-mgeneral-regs-only $(GUEST_ARCH_CFLAGS) \
		-fno-stack-protector -fno-asynchronous-unwind-tables \
		-I$(UAPI)/include -I$(common-dir) -I$(arch-dir)core -I$(vm-arch-dir)guest $(stage-inc) \
		-I$(CURDIR)
guest-parts := $(vm-arch-dir)guest/guest_entry.S $(vm-dir)guest/guest_sweep.c $(guest-src)

$(O)/guest.elf: $(guest-parts) $(vm-dir)guest/guest.lds $(common-dir)types.h \
		$(wildcard *.h $(vm-dir)*.h $(vm-arch-dir)*/*.h $(device-dir)*.h) | $(O)
	$(CC) $(GUEST_CFLAGS) -T $(vm-dir)guest/guest.lds -Wl,--build-id=none \
		-Wl,-z,max-page-size=4096 -o $@ $(guest-parts)

$(O)/guest.bin: $(O)/guest.elf
	$(OBJCOPY) -O binary $< $@

$(O)/guest_image.o: $(vm-dir)guest/guest_image.S $(O)/guest.bin
	$(CC) -Wa,-I$(O) -c -o $@ $<

$(O)/vm/%.o: $(vm-dir)%.c | $(O)/vm
	$(CC) $(CFLAGS) -MMD -c -o $@ $<

$(O)/vm/%.o: $(vm-arch-dir)vm/%.c | $(O)/vm
	$(CC) $(CFLAGS) -MMD -c -o $@ $<

$(O)/vm:
	mkdir -p $@

-include $(wildcard $(O)/vm/*.d)
