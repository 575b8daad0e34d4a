# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3 with QEMU: a Linux guest and the NIC that is passed through to it cross the kexec."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from xml.etree import ElementTree as ET

from common.dma.igb import OTHER
from common.dma.sections import SECTIONS
from common.dma.witness import FILES as DMA_FILES
from common.dma.witness import frame_logs
from common.guest import talk
from common.guest.lines import FILES as GUEST_FILES
from common.guest.lines import PORTS
from common.host.qemu_image import disk_and_ports, qemu_with_cpr
from common.machine.helper import HostHelper, MachineView
from common.stage.declaration import GUEST_CONFIG, GUEST_SOURCES, LinuxGuest, Option, Size, Stage
from common.stage.options import qemu_guest
from iommufd.machine import devices
from iommufd.stage import STAGE as PROGRAM
from iommufd.witness import TABLES_FILE
from iommufd_qemu.checks import CLAIMS
from iommufd_qemu.controls import CONTROLS
from iommufd_qemu.promises import GAPS, PROMISES
from iommufd_qemu.timing import blackout, headline, phases
from iommufd_qemu.witness import TRACES, read_witness

_OTHER_MIB = 26


def _size(options: Mapping[str, int]) -> Size:
    """Guest RAM, the second device's memory, KHO's scratch, both kernels, QEMU and libraries."""
    guest = options["guest_memory"]
    scratch, kernels, qemu = 96, 480, 256
    return Size(
        guest + _OTHER_MIB + scratch + kernels + qemu,
        f"guest {guest} + memory of the second device {_OTHER_MIB} + KHO scratch {scratch}"
        f" + kernels and workload {kernels} + QEMU {qemu} MiB",
    )


def _devices(options: Mapping[str, int]) -> tuple[ET.Element, ...]:
    return (*devices(options), *disk_and_ports(qemu_with_cpr()))


def _helper(machine: MachineView) -> AbstractContextManager[HostHelper]:
    # Not at the top: what is stored is judged without a QMP library.
    from iommufd_qemu.host import nic_host

    return nic_host(machine)


NOT_CLAIMED = (
    *PROGRAM.not_claimed[:2],
    "Interrupts are turned off for the handover and set up again: those raised in"
    " between are replaced by one injected on each vector, for which the guest's"
    " driver finds either no work or all of it.",
    "Interrupt remapping is not handed over: the next kernel sets it up from scratch.",
    "The guest is paused while QEMU saves, while the device is preserved, through the kexec and"
    " until another QEMU has loaded it.",
    "The format in which QEMU passes on its descriptors is private to QEMU 11.1;"
    " no other version is supported.",
    "The two kernels are two builds of one source: the handover format is private.",
    "Times measured under TCG say nothing about hardware.",
)

# A distribution's kernel is large, and unpacks itself while it is emulated twice over.
_PATIENCE_OF_ANOTHER = 3


_MICROVM, _Q35 = "microvm", "q35"
MACHINE = Option(
    flag="--guest-machine",
    parameter="guest_machine",
    default=0,
    minimum=0,
    maximum=1,
    words=(_MICROVM, _Q35),
    metavar="TYPE",
    help="machine type of QEMU's guest: microvm, or q35, a PC with firmware (default microvm)",
)


def _modules(options: Mapping[str, int]) -> tuple[str, ...]:
    """What a kernel of the user's needs for our guest's console and its NIC."""
    q35 = MACHINE.said(options[MACHINE.parameter]) == _Q35
    return ("virtio_pci" if q35 else "virtio_mmio", "virtio_console", "igb")


def with_own_guest(stage: Stage) -> Stage:
    """The stage with a kernel of the user's for the guest: our /init and all checks stay."""
    patience = max(stage.config.patience, _PATIENCE_OF_ANOTHER)
    return replace(stage, config=replace(stage.config, guest_image=True, patience=patience))


STAGE = replace(
    PROGRAM,
    name="iommufd_qemu",
    title="QEMU, its Linux guest and the guest's NIC survive a kexec",
    workload="qemu",
    seconds_per_gib=600,  # the guest goes round its memory three times
    guest=LinuxGuest(fragments=(GUEST_CONFIG,), sources=GUEST_SOURCES, modules=_modules),
    own_guest=with_own_guest,
    claims=CLAIMS,
    not_claimed=NOT_CLAIMED,
    controls=CONTROLS,
    promises=PROMISES,
    gaps=GAPS,
    demo_controls=frozenset({"device-not-preserved", "interrupts-left", "not-injected"}),
    debug_options={},
    debug_controls=frozenset({"device-not-preserved"}),
    options=(
        *qemu_guest(192, minimum=128),
        MACHINE,
        Option(
            flag="--rate",
            parameter="rate",
            default=300,
            minimum=50,
            maximum=1000,
            help="frames a second to the guest's NIC (default 300)",
        ),
        next(option for option in PROGRAM.options if option.parameter == "intremap"),
    ),
    size=_size,
    devices=_devices,
    inner_qemu=qemu_with_cpr,
    ports=PORTS,
    traces=TRACES,
    phases=phases,
    blackout=blackout,
    files=(
        *(*DMA_FILES, *GUEST_FILES, *frame_logs("device-returned.bin")),
        *(TABLES_FILE, talk.FILE),
    ),
    helper=_helper,
    sections=SECTIONS,
    witness=read_witness,
    progress_messages={
        "kernel.release": "kernel {} is up",
        "guest.memory_mib": "QEMU with a guest of {} MiB started; " + OTHER + " is not its",
        "ring.count": "the guest's driver has given the NIC {} descriptors",
        "await traffic": "the host sends, and watches the machine's RAM",
        "load.us": "incoming kernel loaded while the guest runs, in {} us",
        "await save": "QEMU stops the guest, saves it, and leaves its descriptors",
        "cpr.files": "{} descriptors taken from QEMU",
        "t.interrupts_off": "the NIC's interrupts turned off; it writes on",
        "preserve.iommufd": "iommufd preserved with QEMU's HWPT: {}",
        "preserve.device": "NIC preserved while it receives: {}",
        "await snapshot-outgoing": "the host reads the IOMMU's tables; rebooting",
        "await snapshot-booted": "the host reads the IOMMU's tables again",
        "retrieve.device": "NIC retrieved: {}",
        "restore.hwpt": "live page table compared with the guest's RAM, and taken over: {}",
        "t.adopted": "NIC attached as it runs",
        "finish": "session finished: {}",
        "irq.injected": "the guest runs; one interrupt made up on each of {} vectors",
        "await resume": "another QEMU is up; it loads",
        "t.resumed": "nothing is sent until it has read what arrived while it was paused",
        "await silence": "the host stops sending",
    },
    headline=headline,
)
