# SPDX-License-Identifier: GPL-2.0-only
"""Whether a device that was taken over can do DMA to the same memory, and stops when released.

A device that never stopped goes on in its ring. One that was stopped for the live update is
initialised anew: its ring is placed anew in the memory that was preserved, and the host watches
that one from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from common.checks.live_update import INCOMING, facts_are, no_data, outcome
from common.checks.model import Check, Outcome
from common.dma.checks import AT_LEAST_LANDED
from common.dma.evidence import BUS_MASTER, AfterTakeover, DmaEvidence
from common.dma.frames import Landing, look_at, read_landed
from common.guest.checks import both
from common.machine import kho_tree
from common.record.dialogue import Side
from common.record.evidence import Trial

LOG = "anew-landed.bin"
"""What landed in a ring that was placed anew."""
_LAST_NS = 300_000_000
"""What was sent this shortly before the end need not have been seen by then."""


def after(
    folder: Path, sides: Sequence[Side], sent: Sequence[int], landed: Sequence[Landing]
) -> AfterTakeover | None:
    """What was sent and what landed from the takeover on, or from when the device was initialised
    anew; None where nobody took it over. Raises OSError or ValueError when a log is damaged."""
    side = next((side for side in sides if side.name == INCOMING), None)
    anew = side.stamps.get("t.anew") if side else None
    begin = anew or (side.stamps.get("t.adopted") if side else None)
    if begin is None or not sent:
        return None
    if (folder / LOG).exists():
        landed = read_landed(folder / LOG)
    window = look_at(sent, landed, begin, max(begin, sent[-1] - _LAST_NS), {})
    return AfterTakeover(window=window, anew=anew is not None)


def _lands_after(trial: Trial) -> Outcome:
    found, sides = trial.seen(DmaEvidence).after, both(trial)
    numbers = [side.number("guest.frames") for side in sides] if sides else [None]
    if found is None or not found.window.sent or None in numbers:
        return no_data("fact t.adopted, guest.frames; frame logs", expected="frames land")
    read = (numbers[1] or 0) - (numbers[0] or 0)
    how = "initialised anew" if found.anew else "taken over as it ran"
    return outcome(
        found.window.fresh >= AT_LEAST_LANDED * found.window.sent and read > 0,
        expected=f"{found.window.sent} frames sent after that land in the preserved memory",
        seen=f"{found.window.fresh} landed; the guest read {read} more; the device was {how}",
        evidence=f"device-landed.bin, {LOG}; facts t.adopted, t.anew, guest.frames",
    )


def _same_place(trial: Trial) -> Outcome:
    """The place in the machine alone: what is in the registers there is another question."""
    sides = both(trial)
    keys = ("device.bdf", "device.path")
    seen = [[side.facts.get(key) for key in keys] for side in sides] if sides else [[None]]
    if any(None in one for one in seen):
        return no_data("facts device.bdf, device.path", expected="the same place")
    return outcome(
        seen[0] == seen[1],
        expected=f"{seen[0][0]}, by {seen[0][1]}",
        seen=f"{seen[1][0]}, by {seen[1][1]}",
        evidence="facts device.bdf, device.path",
    )


def _let_go(trial: Trial) -> Outcome:
    """In its own configuration, as QEMU saw it written when the traffic was over."""
    trace = trial.seen(DmaEvidence).trace
    if not trace.config_writes:
        return no_data("no write to the device's configuration in qemu-trace.log", expected="off")
    last = trace.last_command
    return outcome(
        last is not None and not last.value & BUS_MASTER,
        expected="the last PCI_COMMAND written to it is one without bus mastering",
        seen=f"{last.value:#x} at {last.ms:+.0f} ms" if last else "none was written",
        evidence="qemu-trace.log, pci_cfg_write; times from 'Starting new kernel'",
    )


# KHO's and LUO's own, which no session gives back: kvm_memfd/memory.py tells which they are; and
# the list of preserved PCI devices.
_OWN_PAGES = 5


def _kept_pages(trial: Trial) -> int | None:
    """Pages that were registered with KHO at the kexec and that the incoming kernel does not have
    at its end: MemTotal grows by each that is restored. None where nobody counted."""
    counted, side = trial.seen(DmaEvidence).kho.get("reboot"), trial.side(INCOMING)
    start, end = (side.number(f"mem.total_kb{when}") if side else None for when in ("", "_at_end"))
    if counted is None or start is None or end is None:
        return None
    return kho_tree.stored_pages(counted) - (end - start) // 4


def unpinned(at_boot: Callable[[Trial], int] = lambda _: 0) -> Check:
    """Nothing is left of a handover; `at_boot`: pages that the incoming kernel takes over before
    its first process says how much memory there is."""

    def ask(trial: Trial) -> Outcome:
        answer = facts_are(INCOMING, {"pins.left": "0", "areas.left": "0"})(trial)
        kept, most = _kept_pages(trial), _OWN_PAGES + at_boot(trial)
        if answer.status != "PASS" or kept is None:
            return answer
        return outcome(
            kept <= most,
            expected=f"{answer.expected}, at most {most} pages not given back",
            seen=f"{answer.seen}, {kept} pages of what was registered with KHO not given back",
            evidence=f"{answer.evidence}; kho.json; facts mem.total_kb*",
        )

    return Check(
        "unpinned",
        "Is nothing pinned or kept for the handover any more when all is released?",
        ask,
    )


_IDLE = "enabled 0, suspended, for vfio-pci"
# The workload looks for so long until a device sleeps (igb_report.c); one that nobody uses does so
# within some milliseconds.
_ASLEEP_MS = 3000


def _awake_by_itself(trial: Trial) -> bool:
    """Another count or driver than there must be, or a device that does not sleep although the
    machine was run for half of the time."""
    side, host = trial.side(INCOMING), trial.host
    said = side.facts.get("device.let_go") if side else None
    if said is None or host is None:
        return False
    if said.replace("active", "suspended") != _IDLE:
        return True
    return host.machine_kept_ms() < _ASLEEP_MS / 2


INTERRUPTS_ARRIVE = Check(
    "interrupts_arrive",
    "Does one interrupt arrive for each that is asked for, by INTx and by MSI-X?",
    facts_are(INCOMING, {"device.interrupts": "intx=1 msix=1"}),
    timed=True,
)
IDLE_WHEN_CLOSED = Check(
    "idle_when_closed",
    "Is it disabled, asleep, and kept for vfio-pci when nobody has it open?",
    facts_are(INCOMING, {"device.let_go": _IDLE}),
    timed=True,
    but=_awake_by_itself,
)
LET_GO = Check("let_go", "Was it stopped when its owner released it?", _let_go)
LANDS_AFTER = Check(
    "dma_after",
    "Do frames land in the same memory after the device was taken over?",
    _lands_after,
    timed=True,
)
SAME_PLACE = Check("same_place", "Is it at the same BDF, behind the same bridges?", _same_place)
