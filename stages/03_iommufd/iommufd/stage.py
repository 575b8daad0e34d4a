# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3: a device continues DMA through an IOMMU whose translation outlives the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.dma.sections import SECTIONS
from common.errors import UsageError
from common.stage.declaration import Option, Size, Stage
from common.stage.options import check_ring, frames
from iommufd.checks import CLAIMS
from iommufd.controls import CONTROLS
from iommufd.machine import devices
from iommufd.promises import GAPS, PROMISES
from iommufd.remapping import REQUESTS
from iommufd.swept import SWEPT_CALLS
from iommufd.timing import blackout, headline, phases
from iommufd.witness import FILES, TRACES, read_witness, translation_witness

GAP_SECONDS = 10
"""How long the ring may go unread, at most: kexec, boot, and the device taken back, with all
that is tried wrongly before. Measured: 4 to 5 s on an emulated CPU of a busy host."""

_BUFFER_KIB = 2
_GUEST_MIB = 24
# Descriptors of 2 MiB of buffers, which are mapped as one area.
_CHUNK = 1024


def _size(options: Mapping[str, int]) -> Size:
    """The memory of both devices, KHO's scratch, and both kernels."""
    ring, rate = options["ring"], options["rate"]
    check_ring(rate=rate, ring=ring, seconds=GAP_SECONDS * options.get("patience", 1))
    if ring % _CHUNK or ring < 2 * _CHUNK:
        raise UsageError(
            f"a ring of {ring} does not suit stage 3, which maps {_CHUNK} buffers at a time;"
            f" ask for a --ring that is a multiple of {_CHUNK}, at least {2 * _CHUNK}"
        )
    memory = 2 * (ring * _BUFFER_KIB // 1024 + 2)
    guest = _GUEST_MIB * options["guest"]
    scratch, kernels = 96, 480
    return Size(
        memory + guest + scratch + kernels,
        f"memory of two devices {memory} + guest {guest} + KHO scratch {scratch} + kernels and"
        f" workload {kernels} MiB",
    )


NOT_CLAIMED = (
    "Emulated hardware: QEMU serialises root table changes and DMA, so the absence"
    " of loss at that moment says nothing about real hardware; its caches are not"
    " those of a real IOMMU.",
    "VT-d in legacy mode only: no scalable mode, PASID, ATS, PRI, nesting or dirty"
    " tracking; one device per group.",
    "No interrupts: the device is polled, and preserving a device with interrupts"
    " enabled is refused. What is handed over is a remapping table without"
    " entries, which blocks them.",
    "QEMU does not block requests in compatibility format, does not check which"
    " device a DMA write to 0xfee00000 comes from, and records only the first of"
    " several faults; those in the remapped format are counted in its trace.",
    "In set-up (b) the device can access only the memory of its ring, not the"
    " guest's own RAM; in the main run there is no guest.",
    "The two kernels are two builds of one source: the handover format is private.",
    "An incoming kernel that finds the IOMMU in a state other than the one handed"
    " over panics, by design.",
    "Times measured under TCG say nothing about hardware.",
)

STAGE = Stage(
    number=3,
    folder=Path(__file__).parent.parent,
    name="iommufd",
    title="a device continues DMA through an IOMMU whose translation outlives the kernel",
    claims=CLAIMS,
    not_claimed=NOT_CLAIMED,
    controls=CONTROLS,
    promises=PROMISES,
    gaps=GAPS,
    options=(
        *frames(ring=12288, aborts=10),
        Option(
            flag="--guest",
            parameter="guest",
            default=0,
            minimum=0,
            maximum=1,
            metavar="0|1",
            help="1: set-up (b), a KVM guest drives the device itself (default 0)",
        ),
        Option(
            flag="--interrupt-remapping",
            parameter="intremap",
            default=1,
            minimum=0,
            maximum=1,
            metavar="0|1",
            help="0: the IOMMU does not remap interrupts (default 1)",
        ),
    ),
    cmdline=(
        "kho=on",
        "liveupdate=on",
        "kho_scratch=16M,64M,16M",
        "intel_iommu=on",
        "pci=realloc=off",
    ),
    size=_size,
    debug_options={"rate": 100, "aborts": 3},
    # FINISH of a device that nobody retrieved; a device that is not in the session
    debug_controls=frozenset({"nothing-retrieved", "device-not-preserved"}),
    phases=phases,
    blackout=blackout,
    devices=devices,
    traces=(*TRACES, *REQUESTS),
    files=FILES,
    helper=translation_witness,
    sections=SECTIONS,
    witness=read_witness,
    progress_messages={
        "kernel.release": "kernel {} is up",
        "guest.memory_mib": "KVM guest with {} MiB running; the device is assigned to it",
        "hwpt": "device attached to HWPT {}, IOVAs above all RAM",
        "await traffic": "the host sends, and watches the machine's RAM",
        "aborts.closed": "session closed {}",
        "preserve.iommufd": "iommufd preserved with its marked HWPT: {}",
        "preserve.device": "device preserved while it receives: {}",
        "t.loaded": "incoming kernel loaded meanwhile",
        "await snapshot-outgoing": "the host reads the IOMMU's tables; rebooting",
        "await snapshot-booted": "the host reads the IOMMU's tables again",
        "other.command": "second device's bus mastering forced on by hand (it was {})",
        "retrieve.device": "device retrieved: {}",
        "restore.hwpt": "live page table compared, and taken over: {}",
        "t.adopted": "device attached as it runs",
        "guest.0.counter_at_load": "guest loaded at step {}; it drives the device",
        "finish": "session finished: {}",
        "await silence": "the host stops sending",
        "device.good_packets": "the device itself counted {} frames",
        "unmap.missing": "2 MiB unmapped: {} frames faulted",
        "map.landed": "mapped again: {} frames landed",
    },
    swept_calls=SWEPT_CALLS,
    headline=headline,
)
