# SPDX-License-Identifier: GPL-2.0-only
"""What the witnesses of stage 3 with QEMU saw: frames, tables, interrupts, QEMU, the guest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from common.dma.frames import read_landed, read_returned, read_sent
from common.guest.evidence import LinuxGuestEvidence, QemuSeen
from common.guest.lines import read_guest
from common.guest.talk import Entry, Talk, frames_within, read_entries, talk_of
from common.record.clocks import host_times
from common.record.dialogue import Stored
from common.record.qemu.trace import INTERRUPTS, TEXTS, TraceEvent
from common.record.raw import RawTrial
from iommufd import witness as iommufd_witness
from iommufd.evidence import TranslationEvidence

# As exactly as the host knows the time of a look at the device.
_CLOCK_NS = 20_000_000
TRACES = (*iommufd_witness.TRACES, *INTERRUPTS)


class Interrupts(Stored):
    """Interrupts that the device raised, by vector: before the guest stopped, while it stood
    still, and after it was resumed."""

    before: dict[str, int]
    gap: dict[str, int]
    after: dict[str, int]

    def raised(self, vector: int) -> int:
        """Of one vector, ever."""
        return sum(part.get(str(vector), 0) for part in (self.before, self.gap, self.after))


class NicEvidence(TranslationEvidence, LinuxGuestEvidence):
    """Of stage 3 with QEMU."""

    interrupts: Interrupts
    returned_ms: float | None
    """How long after the resume the guest's driver gave the first descriptor back."""
    next_sent_ms: float | None
    """How long after the resume the host sent another frame."""
    while_stopped: int | None
    """Frames that were seen in RAM while the guest stood still; None when that is not known."""
    talk: Talk | None
    """Of the guest's TCP connection to the host; None where nobody listened there."""


def read_witness(raw: RawTrial) -> NicEvidence:
    """All that was seen of a stored trial. Raises OSError or ValueError when damaged."""
    device, guest = iommufd_witness.read_witness(raw), read_guest(raw)
    stopped = _event(guest.qemu, "outgoing", "stop")
    resumed = _event(guest.qemu, "incoming", "resume")
    entries = read_entries(raw)
    heads = {
        key: _with_peer(raw, getattr(device, key), entries)
        for key in ("between_heads", "between_heads_due")
    }
    return NicEvidence(
        **dict(device) | dict(guest) | heads,
        talk=talk_of(entries, stopped, resumed),
        interrupts=_interrupts(raw.trace, stopped, resumed),
        returned_ms=_returned(raw, resumed),
        next_sent_ms=_next_sent(raw, resumed),
        while_stopped=_while_stopped(raw, stopped, resumed),
    )


def _with_peer(
    raw: RawTrial, heads: tuple[int, int] | None, entries: Sequence[Entry]
) -> tuple[int, int] | None:
    """The least and the most frames that the device can have written between both looks at its
    head: those of the guest's peer may be among them."""
    times = host_times(raw.sides, "t.head")
    if heads is None or len(times) != 2:
        return None
    least, most = heads
    return least, most + frames_within(entries, times[0] - _CLOCK_NS, times[1] + _CLOCK_NS)


def _event(qemu: Mapping[str, QemuSeen], side: str, name: str) -> int | None:
    return qemu[side].events.get(name) if side in qemu else None


def _returned(raw: RawTrial, resumed: int | None) -> float | None:
    """The guest may be at work before a harness that was not run has read QEMU's RESUME; in the
    incoming kernel nobody else gives a descriptor back."""
    side = next((side for side in raw.sides if side.name == "incoming"), None)
    path = raw.folder / "device-returned.bin"
    if resumed is None or side is None or not path.exists():
        return None
    returned = read_returned(path)
    raw.within(path.name, *(t for t, _ in (*returned[:1], *returned[-1:])))
    first = next((t for t, _ in returned if t >= side.started), None)
    return None if first is None else max(0, first - resumed) / 1e6


def _next_sent(raw: RawTrial, resumed: int | None) -> float | None:
    path = raw.folder / "device-sent.bin"
    if resumed is None or not path.exists():
        return None
    return next(((t - resumed) / 1e6 for t in read_sent(path) if t >= resumed), None)


def _while_stopped(raw: RawTrial, stopped: int | None, resumed: int | None) -> int | None:
    path = raw.folder / "device-landed.bin"
    if stopped is None or resumed is None or not path.exists():
        return None
    return sum(stopped < frame.seen < resumed for frame in read_landed(path))


def _interrupts(
    events: Iterable[TraceEvent],
    stopped: int | None,
    resumed: int | None,
) -> Interrupts:
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("before", "gap", "after")}
    for event in events:
        if event.name not in INTERRUPTS or not (match := TEXTS[event.name].fullmatch(event.text)):
            continue
        when = "before" if stopped is None or event.t < stopped else "gap"
        if resumed is not None and event.t >= resumed:
            when = "after"
        counts[when][str(int(match[1], 0))] += 1
    return Interrupts(**{name: dict(sorted(count.items())) for name, count in counts.items()})
