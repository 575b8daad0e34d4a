# SPDX-License-Identifier: GPL-2.0-only
"""x86-64: a q35 with SVM, which QEMU's TCG emulates with nested paging; it does not emulate VMX."""

from __future__ import annotations

from common.arch.architecture import Architecture, CpuModel, RamLayout

X86_64 = Architecture(
    name="x86_64",
    title="x86-64",
    host="x86_64",
    make_variables=(),
    cross_prefix="",
    makefile="arch/x86/Makefile",
    image_goal="bzImage",
    image_path="arch/x86/boot/bzImage",
    image_magic=(0x202, b"HdrS"),
    qemu="qemu-system-x86_64",
    libvirt_arch="x86_64",
    machine="q35",
    cpus=(CpuModel("EPYC", ("svm", "npt")),),
    features={"acpi": {}, "apic": {}},
    # QEMU, hw/i386/pc_q35.c:pc_q35_init
    ram=RamLayout(base=0, split_over=0xB000_0000, low=0x8000_0000, high=4 << 30),
    serial={"type": "isa-serial"},
    console="ttyS0",
    # A host that does not run QEMU's timers for 60 ms is no reason to panic; Linux as a guest of
    # Hyper-V, VMware or KVM leaves that check out as well.
    cmdline=("no_timer_check",),
    memmap=True,
    no_guest_on_cpu=0,
    firmware=True,
    leads_by="CR3 and RIP",
    pointer="RIP",
    cpu_questions=("info lapic {cpu}",),
    guest_ram=0,
    o_largefile=0o100000,
    memory_map=True,
    counter="TSC",
    counter_parameter="tsc_early_khz",
)
