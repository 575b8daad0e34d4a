# SPDX-License-Identifier: GPL-2.0-only
"""Stage 2: a device without IOMMU keeps writing to a guest's RAM across the kexec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.dma.igb import igb_devices
from common.dma.sections import SECTIONS
from common.dma.witness import FILES, TRACES, frame_witness, read_witness
from common.errors import UsageError
from common.stage.declaration import Option, Size, Stage
from common.stage.options import check_ring, frames, guest_memory, vcpus
from vfio_noiommu.checks import CLAIMS
from vfio_noiommu.controls import CONTROLS
from vfio_noiommu.promises import GAPS, PROMISES
from vfio_noiommu.swept import SWEPT_CALLS
from vfio_noiommu.timing import blackout, headline, phases

GAP_SECONDS = 7
"""How long the ring may go unread, at most: pause, kexec, boot, and the device taken back.
Measured: 2 to 4 s on an emulated CPU; the rest is for a host that is busy."""

_BUFFER_KIB = 2


def _size(options: Mapping[str, int]) -> Size:
    """Guest RAM, of which the ring takes a part, KHO's scratch, and both kernels."""
    ring, rate, guest = options["ring"], options["rate"], options["guest_memory"]
    check_ring(rate=rate, ring=ring, seconds=GAP_SECONDS * options.get("patience", 1))
    buffers = ring * _BUFFER_KIB // 1024
    if guest < buffers + 16:
        raise UsageError(
            f"a ring of {ring} buffers of {_BUFFER_KIB} KiB takes {buffers} MiB of the guest's"
            f" {guest}, which needs 16 MiB for itself; ask for more --guest-memory"
        )
    scratch, other, kernels = 96, 8, 480
    return Size(
        guest + other + scratch + kernels,
        f"guest {guest} (ring {buffers}) + second device {other} + KHO scratch {scratch}"
        f" + kernels and workload {kernels} MiB",
    )


NOT_CLAIMED = (
    "Emulated hardware: QEMU does not enforce a bridge's bus mastering bit, and says nothing about"
    " ordering, ACS, ATS or real power states.",
    "No isolation: without an IOMMU the device could write anywhere, and whoever holds its file is"
    " as good as root (stage 3).",
    "No interrupts: the device is polled, and preserving one with interrupts enabled is refused.",
    "The guest has no device of its own: its VMM drives the igb and advances the"
    " ring's tail for it.",
    "The two kernels are two builds of one source: the handover format is private.",
    "Times measured under TCG say nothing about hardware.",
)

STAGE = Stage(
    number=2,
    folder=Path(__file__).parent.parent,
    name="vfio_noiommu",
    title="a device continues DMA into a preserved memfd, and is never reset",
    claims=CLAIMS,
    not_claimed=NOT_CLAIMED,
    controls=CONTROLS,
    promises=PROMISES,
    gaps=GAPS,
    options=(
        guest_memory(128),
        vcpus(),
        *frames(ring=8192, aborts=20),
        Option(
            flag="--switch",
            parameter="switch",
            default=1,
            minimum=0,
            maximum=1,
            metavar="0|1",
            help="stage 2: 1: both devices behind one PCIe switch, with three bridges above each"
            " (default); 0: each behind a root port of its own",
        ),
        Option(
            flag="--races",
            parameter="races",
            default=2,
            minimum=0,
            maximum=1000,
            help="stage 2: how often to take the second device away, in each of four ways, beside a"
            " live update of it (default 2)",
        ),
    ),
    cmdline=(
        "kho=on",
        "liveupdate=on",
        "kho_scratch=16M,64M,16M",
        "vfio.enable_unsafe_noiommu_mode=1",
        "vfio_pci.enable_sriov=1",
        "pci=realloc=off",
    ),
    size=_size,
    debug_options={"rate": 50, "aborts": 3},
    # FINISH of a device that nobody retrieved; a device that is not in the session
    debug_controls=frozenset({"other-preserved", "device-not-preserved"}),
    phases=phases,
    blackout=blackout,
    devices=igb_devices,
    traces=TRACES,
    files=FILES,
    helper=frame_witness,
    sections=SECTIONS,
    witness=read_witness,
    progress_messages={
        "kernel.release": "kernel {} is up",
        "guest.memory_mib": "KVM guest with {} MiB running",
        "await traffic": "the host sends, and watches the machine's RAM",
        "aborts.closed": "session closed {}",
        "aborts.killed": "holder killed {}",
        "preserve.device": "memfds and device preserved while it receives: {}",
        "load.us": "incoming kernel loaded meanwhile, in {} us",
        "await pause": "pausing the guest; the device goes on",
        "await reboot": "state captured; rebooting into the incoming kernel",
        "t.resume": "guest resumed; it reads on",
        "retrieve.device": "device retrieved: {}",
        "t.adopted": "device taken over as it runs",
        "finish": "session finished: {}",
        "await silence": "the host stops sending",
        "device.good_packets": "the device itself counted {} frames",
    },
    swept_calls=SWEPT_CALLS,
    headline=headline,
)
