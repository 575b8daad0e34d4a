# SPDX-License-Identifier: GPL-2.0-only
"""What the witnesses of stage 3 with QEMU saw: frames, tables, interrupts, QEMU, the guest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from common.dma.frames import read_landed, read_returned, read_sent
from common.guest.lines import read_guest
from common.record.qemu.trace import INTERRUPTS, TEXTS, TraceEvent
from common.record.raw import RawTrial
from iommufd import witness as iommufd_witness

TRACES = (*iommufd_witness.TRACES, *INTERRUPTS)


def read_witness(raw: RawTrial) -> dict[str, Any]:
    """All that was seen of a stored trial. Raises OSError or ValueError when damaged."""
    found = {**iommufd_witness.read_witness(raw), **read_guest(raw)}
    resumed = found["qemu"].get("incoming", {}).get("event.resume")
    stopped = found["qemu"].get("outgoing", {}).get("event.stop")
    found["interrupts"] = _interrupts(raw.trace, stopped, resumed)
    found["returned_ms"] = _returned(raw, resumed)
    found["next_sent_ms"] = _next_sent(raw, resumed)
    found["while_stopped"] = _while_stopped(raw, stopped, resumed)
    return found


def _returned(raw: RawTrial, resumed: int | None) -> float | None:
    """How long after the resume the guest's driver gave the first descriptor back, in ms."""
    path = raw.folder / "device-returned.bin"
    if resumed is None or not path.exists():
        return None
    returned = read_returned(path)
    raw.within(path.name, *(t for t, _ in (*returned[:1], *returned[-1:])))
    return next(((t - resumed) / 1e6 for t, _ in returned if t >= resumed), None)


def _next_sent(raw: RawTrial, resumed: int | None) -> float | None:
    """How long after the resume the host sent another frame, in ms."""
    path = raw.folder / "device-sent.bin"
    if resumed is None or not path.exists():
        return None
    return next(((t - resumed) / 1e6 for t in read_sent(path) if t >= resumed), None)


def _while_stopped(raw: RawTrial, stopped: int | None, resumed: int | None) -> int | None:
    """Frames that were seen in RAM while the guest stood still; None when that is not known."""
    path = raw.folder / "device-landed.bin"
    if stopped is None or resumed is None or not path.exists():
        return None
    return sum(stopped < frame.seen < resumed for frame in read_landed(path))


def _interrupts(
    events: Iterable[TraceEvent],
    stopped: int | None,
    resumed: int | None,
) -> dict[str, dict[str, int]]:
    """Interrupts that the device raised, by vector: before the guest stopped, while it stood
    still, and after it was resumed."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("before", "gap", "after")}
    for event in events:
        if event.name not in INTERRUPTS or not (match := TEXTS[event.name].fullmatch(event.text)):
            continue
        when = "before" if stopped is None or event.t < stopped else "gap"
        if resumed is not None and event.t >= resumed:
            when = "after"
        counts[when][str(int(match[1], 0))] += 1
    return {name: dict(sorted(count.items())) for name, count in counts.items()}
