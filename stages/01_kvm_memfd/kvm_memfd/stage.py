# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1: a running KVM VM whose RAM is a memfd crosses the kexec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from common.stage.declaration import Option, Size, Stage
from common.stage.options import guest_memory, vcpus
from kvm_memfd.arm64 import ARM64
from kvm_memfd.checks import CLAIMS
from kvm_memfd.controls import CHAIN_CONTROLS, CONTROLS
from kvm_memfd.files_controls import CONTROLS as FILES_CONTROLS
from kvm_memfd.files_witness import FILES, read_witnesses, witnesses
from kvm_memfd.promises import PROMISES
from kvm_memfd.swept import SWEPT_CALLS
from kvm_memfd.timing import blackout, headline, phases

FOLIOS = Option(
    flag="--folios",
    parameter="folios",
    default=300,
    minimum=1,
    maximum=1 << 20,
    help="small folios in one memfd; more than 130816 need a second chunk of KHO's list",
)


def _size(options: Mapping[str, int]) -> Size:
    """Guest RAM, what KHO's scratch takes, and what both kernels need beside it."""
    guest = options["guest_memory"]
    scratch, kernels = 96, 416
    more = (
        (options["folios"] - FOLIOS.default) * 4 // 1024
        if options["folios"] > FOLIOS.default
        else 0
    )
    words = f" + more folios {more}" if more else ""
    return Size(
        guest + scratch + kernels + more,
        f"guest {guest} + KHO scratch {scratch} + kernels and workload {kernels}{words} MiB",
    )


NOT_CLAIMED = (
    "No device: the guest has none, and nothing here does DMA (stages 2 and 3).",
    "The vCPUs' state is carried by our own VMM in a second memfd; Linux preserves memfds, not KVM"
    " file descriptors.",
    "The two kernels are two builds of one source unless two trees are given: LUO promises no ABI"
    " between versions.",
    "Times measured under TCG say nothing about hardware.",
)

STAGE = Stage(
    number=1,
    folder=Path(__file__).parent.parent,
    name="kvm_memfd",
    title="a KVM VM's memfd survives a kexec",
    claims=CLAIMS,
    not_claimed=NOT_CLAIMED,
    controls=(*CONTROLS, *FILES_CONTROLS),
    promises=PROMISES,
    chain_controls=CHAIN_CONTROLS,
    options=(guest_memory(256), vcpus(), FOLIOS),
    cmdline=("kho=on", "liveupdate=on", "kho_scratch=16M,64M,16M"),
    size=_size,
    debug_options={"guest_memory": 64},
    # an abort; FINISH by the death of the session's holder, and none at all
    debug_controls=frozenset({"session-closed", "holder-killed", "session-unfinished"}),
    phases=phases,
    blackout=blackout,
    files=FILES,
    helper=witnesses,
    witness=read_witnesses,
    elsewhere={"arm64": ARM64},
    guest_runs_at=frozenset({"pause", "files"}),
    progress_messages={
        "kernel.release": "kernel {} is up",
        "guest.memory_mib": "KVM guest with {} MiB running",
        "preserve.ram.us": "its RAM preserved while it runs, in {} us",
        "load.us": "incoming kernel loaded while it runs, in {} us",
        "await pause": "pausing the guest",
        "await reboot": "state captured; rebooting into the incoming kernel",
        "retrieve.us": "memfds retrieved, in {} us",
        "ram.pages_different": "{} pages differ",
        "t.resume": "guest resumed",
        "finish": "session finished: {}",
    },
    swept_calls=SWEPT_CALLS,
    headline=headline,
)
