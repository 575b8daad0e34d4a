# SPDX-License-Identifier: GPL-2.0-only
"""What the stages with a device report: DMA and IOMMU. See common/stage/section.py."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

from common.dma.checks import HOST_SAW_ALL
from common.dma.evidence import DmaEvidence, frames_of
from common.dma.frames import Window, read_landed, read_returned, read_sent
from common.guest.lines import read_stood_still
from common.record import console, dialogue
from common.record.evidence import Trial
from common.record.qemu.trace import INTERRUPTS, parse
from common.record.raw import read_setting
from common.record.stored_file import read_stamped
from common.stage.section import MARGIN_NS, SLICE_NS, Panel, Row, Section

_IOMMU = re.compile(r"DMAR|iommu|IOMMU|AMD-Vi")
_FACTS = ("iommu", "iova", "dmar", "hwpt", "domain")
_MOST_ROWS = 16


def window_in_words(window: Window | None) -> str:
    """What landed in that time, and how late."""
    if window is None:
        return "there was none"
    return (
        f"{window.landed} of {window.sent} frames in {window.ms:.0f} ms, longest silence"
        f" {window.silence_ms:.1f} ms, slowest {window.latency_ms:.1f} ms"
    )


def _dma_rows(trial: Trial, _console: Sequence[str]) -> list[tuple[str, str]]:
    frames, side = frames_of(trial), trial.side("outgoing")
    if frames is None:
        return []
    trace, first = trial.seen(DmaEvidence).trace, frames.missing_first
    missing = f"{frames.missing}" + (f"; the first is number {first[0]}" if first else "")
    return [
        ("issued", f"{frames.sent} frames, {frames.rate:.0f} a second"),
        ("completed", f"{frames.landed} seen in RAM, {frames.repeated} twice"),
        ("missing", missing),
        ("in the gap", window_in_words(frames.gap)),
        ("before it", window_in_words(frames.before)),
        ("resets", f"{trace.resets_count} of a device, {len(trial.resets())} platform"),
        ("BME cleared", f"{trace.command_count} times"),
        ("BDF", side.facts.get("device.bdf", "not recorded") if side else "not recorded"),
    ]


def _dma_line(trials: Sequence[Trial], passed: Collection[str]) -> str:
    found = [frames for trial in trials if (frames := frames_of(trial))]
    if not found:
        return ""
    sent, landed = sum(one.sent for one in found), sum(one.landed for one in found)
    missing, repeated = sum(one.missing for one in found), sum(one.repeated for one in found)
    gap = sum(one.gap.landed for one in found if one.gap)
    # Those that the workload lets go astray are no loss: the check knows their numbers.
    meant = missing and HOST_SAW_ALL.name in passed
    number = f" (n={len(found)})" if len(found) != len(trials) else ""
    return (
        f"DMA{number}: {sent} frames sent, {landed} landed, {missing} missing"
        f"{' (all on purpose)' if meant else ''}, {repeated} twice; {gap} landed in the gap"
    )


def _dma_panel(folder: Path) -> Panel | None:
    """Frames sent and seen; where a guest drives the device, its interrupts as well."""
    setting = read_setting(folder)
    kexecs = console.parse(read_stamped(folder / "console.jsonl")).kexecs
    sides = dialogue.parse(read_stamped(folder / "dialogue.jsonl"))
    after = next((side for side in sides if side.name == "incoming"), None)
    if not kexecs or after is None or not (folder / "device-landed.bin").exists():
        return None
    zero = kexecs[0]
    stopped, resumed = read_stood_still(folder)
    begin, end = zero - MARGIN_NS, max(after.started, resumed or 0) + MARGIN_NS
    landed = read_landed(folder / "device-landed.bin")
    return Panel(
        title=f"control {setting.control}" if setting.control else setting.name,
        legend="bars: seen in RAM, line: sent",
        gap_ms=(after.started - zero) / 1e6,
        line=_slices(read_sent(folder / "device-sent.bin"), begin, end),
        bars=_slices([landing.seen for landing in landed], begin, end),
        rows=_panel_rows(folder, setting.clock_offset_ns, begin, end),
        still_ms=_still(stopped, resumed, zero),
        silent=not any(zero <= landing.seen <= after.started for landing in landed),
    )


def _still(stopped: int | None, resumed: int | None, zero: int) -> tuple[float, float]:
    if stopped is None or resumed is None:
        return 0.0, 0.0
    return (stopped - zero) / 1e6, (resumed - zero) / 1e6


def _panel_rows(folder: Path, clock_offset_ns: int, begin: int, end: int) -> tuple[Row, ...]:
    path = folder / "device-returned.bin"
    if not path.exists():
        return ()
    with (folder / "qemu-trace.log").open(errors="replace") as lines:
        events = parse(lines, clock_offset_ns=clock_offset_ns)
        raised = sorted(event.t for event in events if event.name in INTERRUPTS)
    had, returned = 0, []
    for t, count in read_returned(path):
        returned += [t] * (count - had)
        had = count
    return (
        Row("interrupts that the NIC raised", _slices(raised, begin, end)),
        Row("descriptors given back by the guest's driver", _slices(returned, begin, end)),
    )


def _slices(times: Sequence[int], begin: int, end: int) -> tuple[int, ...]:
    edges = [bisect_left(times, t) for t in range(begin, end, SLICE_NS)]
    return tuple(b - a for a, b in pairwise(edges))


def _iommu_rows(trial: Trial, messages: Sequence[str]) -> list[tuple[str, str]]:
    facts = [
        f"{side.name} {key}={value}"
        for side in trial.sides
        for key, value in side.facts.items()
        if key.startswith(_FACTS)
    ]
    said = [text for text in messages if _IOMMU.search(text) and "mmand line" not in text]
    return [("", text) for text in (*facts[:_MOST_ROWS], *said[:_MOST_ROWS])]


DMA = Section("DMA", _dma_rows, _dma_line, _dma_panel)
IOMMU = Section("IOMMU", _iommu_rows)
SECTIONS = (DMA, IOMMU)
