# SPDX-License-Identifier: GPL-2.0-only
# For stages that run a KVM guest: the VMM, and a guest program linked from the
# memory sweep here and the stage's own guest-src. Includes workload.mk.

vm-dir := $(dir $(lastword $(MAKEFILE_LIST)))
vm-src := $(wildcard $(vm-dir)*.c)

stage-inc += -I$(vm-dir)
stage-obj += $(patsubst %.c,$(O)/vm/%.o,$(notdir $(vm-src))) $(O)/guest_image.o

include $(vm-dir)../core/workload.mk

# The guest has no library, no data of its own, and no vector registers or
# r12..r15 that the compiler may touch.
GUEST_CFLAGS := -std=gnu11 -O2 $(WARNINGS) -ffreestanding -nostdlib -static -fno-pic -no-pie \
		-mgeneral-regs-only -mno-red-zone -ffixed-r12 -ffixed-r13 -ffixed-r14 -ffixed-r15 \
		-fcf-protection=none -fno-stack-protector -fno-asynchronous-unwind-tables \
		-I$(UAPI)/include -I$(common-dir) $(stage-inc) -I$(CURDIR)
guest-parts := $(vm-dir)guest/guest_entry.S $(vm-dir)guest/guest_sweep.c $(guest-src)

$(O)/guest.elf: $(guest-parts) $(wildcard *.h $(vm-dir)*.h $(device-dir)*.h) $(vm-dir)guest/guest.lds \
		$(common-dir)types.h | $(O)
	$(CC) $(GUEST_CFLAGS) -T $(vm-dir)guest/guest.lds -Wl,--build-id=none \
		-Wl,-z,max-page-size=4096 -o $@ $(guest-parts)

$(O)/guest.bin: $(O)/guest.elf
	$(OBJCOPY) -O binary $< $@

$(O)/guest_image.o: $(vm-dir)guest_image.S $(O)/guest.bin
	$(CC) -Wa,-I$(O) -c -o $@ $<

$(O)/vm/%.o: $(vm-dir)%.c | $(O)/vm
	$(CC) $(CFLAGS) -MMD -c -o $@ $<

$(O)/vm:
	mkdir -p $@

-include $(wildcard $(O)/vm/*.d)
