# SPDX-License-Identifier: GPL-2.0-only
"""arm64: QEMU's virt with a GICv3, which emulates EL2; no firmware, a device tree.

Nothing of the host's is nested: EL2 is TCG's. Which of KVM's modes the kernel takes is the CPU's.
"""

from __future__ import annotations

from common.arch.architecture import Architecture, CpuModel, RamLayout

ARM64 = Architecture(
    name="arm64",
    title="arm64",
    host="aarch64",
    make_variables=("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-"),
    cross_prefix="aarch64-linux-gnu-",
    makefile="arch/arm64/Makefile",
    image_goal="Image",
    image_path="arch/arm64/boot/Image",
    image_magic=(56, b"ARM\x64"),
    qemu="qemu-system-aarch64",
    libvirt_arch="aarch64",
    machine="virt",
    cpus=(
        CpuModel("cortex-a72", what="KVM without VHE (nVHE): its own code at EL2"),
        CpuModel("max", what="KVM with VHE: all of the kernel at EL2; SVE, pointer authentication"),
    ),
    features={"gic": {"version": "3"}},
    # A kernel started by kexec, without EFI, cannot know the tables in RAM that the ITS goes on
    # using: docs/findings/arm64-lpi-tables.md. Nothing here has message-signalled interrupts.
    qemu_args=("-machine", "virtualization=on,its=off"),
    ram=RamLayout(base=1 << 30),
    serial={"type": "system-serial"},
    console="ttyAMA0",
    memmap=False,
    firmware=False,
    leads_by="MMU and PC",
    pointer="PC",
    guest_ram=1 << 30,
    o_largefile=0o400000,
    memory_map=False,
    counter="CNTVCT_EL0",
    counter_parameter=None,
)
