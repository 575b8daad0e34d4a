# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 with QEMU: an unmodified QEMU and its Linux guest cross the kexec."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from xml.etree import ElementTree as ET

from common.guest.lines import FILES as GUEST_FILES
from common.guest.lines import PORTS
from common.host.qemu_binary import qemu_path
from common.host.qemu_image import disk_and_ports
from common.machine.helper import HostHelper, MachineView
from common.record.trial_files import TrialFile
from common.stage.declaration import GUEST_CONFIG, GUEST_SOURCES, LinuxGuest, Size, Stage
from common.stage.options import qemu_guest
from kvm_memfd.witness import FILE as RAM_WITNESS
from kvm_memfd_qemu.checks import CLAIMS
from kvm_memfd_qemu.controls import CONTROLS
from kvm_memfd_qemu.own_guest import with_own_guest
from kvm_memfd_qemu.promises import PROMISES
from kvm_memfd_qemu.timing import blackout, headline, phases
from kvm_memfd_qemu.witness import read_witness

_FOLDER = Path(__file__).parent.parent


def _size(options: Mapping[str, int]) -> Size:
    """Guest RAM, what KHO's scratch takes, both kernels, and QEMU with its libraries."""
    guest = options["guest_memory"]
    scratch, kernels, qemu = 96, 416, 256
    return Size(
        guest + scratch + kernels + qemu,
        f"guest {guest} + KHO scratch {scratch} + kernels and workload {kernels} + QEMU {qemu} MiB",
    )


def _devices(_options: Mapping[str, int]) -> tuple[ET.Element, ...]:
    return disk_and_ports()


def _helper(machine: MachineView) -> AbstractContextManager[HostHelper]:
    # Not at the top: what is stored is judged without a QMP library.
    from kvm_memfd_qemu.host import qemu_host

    return qemu_host(machine)


NOT_CLAIMED = (
    "No device is passed through: the guest's devices are QEMU's own, and QEMU saves them.",
    "QEMU saves and loads its state with its own migration code; what that does not carry is lost.",
    "The guest's clocks stand still during the blackout, since QEMU saves and"
    " restores them; nobody corrects them afterwards.",
    "A QEMU that dies while saving takes the vCPUs with it: the RAM is still"
    " there, but the guest cannot continue (control qemu-killed has QEMU's own"
    " message).",
    "The two kernels are two builds of one source unless two trees are given: LUO promises no ABI"
    " between versions.",
    "Times measured under TCG say nothing about hardware.",
)

STAGE = Stage(
    number=1,
    folder=_FOLDER,
    name="kvm_memfd_qemu",
    title="QEMU and its Linux guest survive a kexec",
    workload="qemu",
    seconds_per_gib=600,  # the guest goes round its memory three times
    guest=LinuxGuest(fragments=(GUEST_CONFIG,), sources=GUEST_SOURCES),
    claims=CLAIMS,
    not_claimed=NOT_CLAIMED,
    controls=CONTROLS,
    promises=PROMISES,
    own_guest=with_own_guest,
    demo_controls=frozenset({"not-preserved", "byte-flipped", "wrong-nonce"}),
    options=qemu_guest(128, minimum=64),
    cmdline=("kho=on", "liveupdate=on", "kho_scratch=16M,64M,16M"),
    size=_size,
    devices=_devices,
    inner_qemu=qemu_path,
    ports=PORTS,
    phases=phases,
    blackout=blackout,
    files=(*GUEST_FILES, TrialFile(RAM_WITNESS)),
    helper=_helper,
    witness=read_witness,
    progress_messages={
        "kernel.release": "kernel {} is up",
        "guest.memory_mib": "QEMU with a guest of {} MiB started",
        "preserve.ram.us": "the guest's RAM preserved while it runs, in {} us",
        "load.us": "incoming kernel loaded while it runs, in {} us",
        "await save": "QEMU saves",
        "state.bytes": "QEMU's state: {} bytes",
        "await reboot": "rebooting into the incoming kernel",
        "retrieve.ram": "RAM retrieved: {}",
        "ram.pages_different": "{} pages differ",
        "await resume": "another QEMU is up; it loads",
        "t.resumed": "guest resumed",
        "finish": "session finished: {}",
    },
    headline=headline,
)
