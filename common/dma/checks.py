# SPDX-License-Identifier: GPL-2.0-only
"""Questions about a device that writes frames through a kexec, for every stage that has one.

Pure functions of a Trial, on what common/dma/witness.py found and the facts of
common/workload/device/igb_report.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from common.checks.live_update import INCOMING, OUTGOING, disturbed, no_data, outcome, same_fact
from common.checks.model import Check, Outcome
from common.dma.evidence import CommandWritten, DmaEvidence, Noted, frames_of
from common.dma.frames import QUIET_NS, FrameReport, Window
from common.dma.igb import Places, places
from common.guest.checks import both
from common.machine.kho_tree import stored_pages
from common.record.evidence import Trial

_EDGE_NS = 100_000_000
_SURE_OF_RING = 4
"""An uncertainty of more than this part of a ring leaves nothing to be said of an index in it."""
QUIET_MS = QUIET_NS / 1e6
"""A silence up to this shows nothing: the host's own scheduling may take that."""
SILENT_PART = 0.2
"""For this part of the gap at most it may be so: what is left has to show the device at work."""
STALL_MS = 50.0
"""So long a device may keep a frame waiting while the host runs everybody that the frame needs: a
longer silence of which more than this is left is the device's own."""
STALLED_PART = 0.2
"""For this part of the time at most frames may be kept waiting: a device that writes for a
moment now and then is never silent for long, and is not at work either. 7 % was seen, loaded."""
UNREAD_PART = 0.02
"""Of the frames so many at most may be known by their descriptors only: a guest frees buffers."""
AT_LEAST_LANDED = 0.9
"""Part of the frames sent within the gap that must land within it."""
_OUR_WAY = ("sender", "qemu", "host", "watcher", "harness", "suspended")
"""Whose absence changes when a frame is sent, seen, or what counts as the gap."""
_Kind = Literal["resets", "command", "power"]


def _gap(trial: Trial) -> tuple[Window, Window] | None:
    """(before the gap, in the gap): what was seen; None when there was no gap or no traffic."""
    frames = frames_of(trial)
    if frames is None or frames.gap is None:
        return None
    return frames.before, frames.gap


def _excused(trial: Trial, failed: Outcome) -> Outcome:
    """What fell in the gap, as the device's fault, or as none that can be told from the host's.

    The device answers for each time in which a frame was due and everybody had run that it needs:
    an absence in the middle of a silence excuses nothing of what comes after it.
    """
    windows = _gap(trial)
    if failed.status == "PASS" or windows is None or trial.host is None:
        return failed
    gap = windows[1]
    begin, end = gap.begin, gap.begin + round(gap.ms * 1e6)
    found = trial.host.longest(begin - _EDGE_NS, end + _EDGE_NS, _OUR_WAY)
    if gap.stall_ms > STALL_MS:
        return failed
    if gap.unsent_ms > QUIET_MS:
        return disturbed(failed, f"nothing was sent for {gap.unsent_ms:.0f} ms of it")
    return disturbed(failed, trial.host.said(found)) if found else failed


def _in_time(gap: Window, ms: float) -> bool:
    """Whether `ms`, a silence or a delay, is none of the device's.

    A longer one than the host's own scheduling takes is not, where hardly any of it is left without
    the times in which sender, QEMU or watcher did not run, and such silences leave most of the gap
    to be looked at.
    """
    if ms <= QUIET_MS:
        return True
    return gap.owed_ms <= STALL_MS and gap.silent_ms <= SILENT_PART * gap.ms


def _no_gap(expected: str) -> Outcome:
    return no_data("no frames, or no gap: device-landed.bin, console.log", expected=expected)


def _dma_in_gap(trial: Trial) -> Outcome:
    """Sent in the gap, seen in RAM in the gap, and soon: not queued and flushed later."""
    windows = _gap(trial)
    if windows is None:
        return _no_gap("frames land in the gap")
    gap = windows[1]
    answer = outcome(
        gap.landed > 0
        and gap.landed >= AT_LEAST_LANDED * gap.sent
        and _in_time(gap, gap.latency_ms),
        expected=f"{gap.sent} frames sent in {gap.ms:.0f} ms, seen in RAM in the same time,"
        f" each within {QUIET_MS:.0f} ms, or {STALL_MS:.0f} ms without the host's absences",
        seen=f"{gap.landed} frames, the slowest after {gap.latency_ms:.1f} ms" + _held_up(gap),
        evidence="device-landed.bin, from 'Starting new kernel' to the first line of userspace",
    )
    return _excused(trial, answer)


def _late_in_gap(trial: Trial) -> bool:
    """Some frame was, though perhaps not by the device's doing."""
    windows = _gap(trial)
    return windows is not None and windows[1].latency_ms > QUIET_MS


def _silent_in_gap(trial: Trial) -> bool:
    """The device was, though perhaps not by its own doing."""
    windows = _gap(trial)
    return windows is not None and windows[1].silence_ms > QUIET_MS


def _held_up(gap: Window) -> str:
    """How much of it is the device's own, where that was measured and is more than usual."""
    if gap.latency_ms <= QUIET_MS:
        return ""
    return f", kept waiting by the device for {gap.owed_ms:.1f} ms"


def _no_silence(trial: Trial) -> Outcome:
    windows = _gap(trial)
    if windows is None:
        return _no_gap("no silence")
    before, gap = windows
    answer = outcome(
        _in_time(gap, gap.silence_ms),
        expected=f"no silence of more than {QUIET_MS:.0f} ms, or {STALL_MS:.0f} ms without the"
        f" host's absences (longest before: {before.silence_ms:.1f} ms)",
        seen=f"longest in the gap: {gap.silence_ms:.1f} ms{_held_up(gap)}",
        evidence="device-landed.bin",
    )
    return _excused(trial, answer)


def _never_held_up(trial: Trial) -> Outcome:
    """Whatever the kernels say of when the gap begins and ends: from the first frame to the last.

    Counted is what is left when the host's own absences are taken off.
    """
    frames, windows = frames_of(trial), _gap(trial)
    if frames is None or windows is None:
        return _no_gap("frames never kept waiting")
    parts = {"in all": frames.whole, "in the gap": windows[1]}
    name, worst = max(parts.items(), key=lambda part: _part(part[1]))
    longest = frames.whole.stall_ms
    return outcome(
        longest <= QUIET_MS and _part(worst) <= STALLED_PART,
        expected=f"no frame kept waiting by the device for more than {QUIET_MS:.0f} ms, and frames"
        f" kept waiting for at most {STALLED_PART:.0%} of the time",
        seen=f"{longest:.1f} ms at most; {_part(worst):.1%} of {worst.ms:.0f} ms {name}",
        evidence="device-landed.bin, from the first frame to the last; away-*.jsonl",
    )


def _part(window: Window) -> float:
    return float(window.stalled_ms / window.ms) if window.ms else 0.0


def _meanwhile(trial: Trial) -> Outcome:
    side = trial.side(OUTGOING)
    counts = [side.number(f"{what}.frames") if side else None for what in ("preserve", "load")]
    if None in counts:
        return no_data("facts preserve.frames, load.frames", expected="more than 0")
    return outcome(
        all(number and number > 0 for number in counts),
        expected="frames arrive during both",
        seen=f"{counts[0]} frames while preserving, {counts[1]} while loading",
        evidence="facts preserve.frames, load.frames",
    )


def host_saw_all(
    but: Callable[[Trial], Sequence[int]] = lambda _trial: (),
) -> Callable[[Trial], Outcome]:
    """Every frame was seen, and only once; those whose numbers `but` gives, never."""

    def ask(trial: Trial) -> Outcome:
        frames, never = frames_of(trial), list(but(trial))
        if frames is None or not frames.sent:
            return no_data("device-sent.bin, device-landed.bin", expected="every frame once")
        socket, missing = trial.seen(DmaEvidence).socket, list(frames.missing_first)
        return outcome(
            missing == never
            and frames.missing == len(never)
            and frames.unread <= frames.sent * UNREAD_PART
            and frames.repeated == frames.foreign == 0,
            expected=f"{frames.sent} frames, each once, as it was sent"
            + (f", except for {_numbers(never)}" if never else ""),
            seen=f"{frames.landed} landed{_unread(frames)}; {frames.missing}"
            f" missing{_first(missing, never)},"
            f" {frames.repeated} repeated, {frames.foreign} not as sent"
            f" ({socket.drops if socket else None} dropped by the host's socket)",
            evidence="device-sent.bin, device-landed.bin",
        )

    return ask


def _unread(frames: FrameReport) -> str:
    """How many of them were gone from their buffers when the host looked."""
    return f", {frames.unread} of them by their descriptors only" if frames.unread else ""


def _numbers(numbers: Sequence[int]) -> str:
    if len(numbers) > 9:
        return f"{len(numbers)} numbers from {numbers[0]} to {numbers[-1]}"
    return f"number{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _first(missing: Sequence[int], never: Sequence[int]) -> str:
    """The first that should not be missing, in words."""
    unexpected = [number for number in missing if number not in never]
    if unexpected:
        return f" from number {unexpected[0]}"
    return " (those)" if missing else ""


def _device_counted_all(trial: Trial) -> Outcome:
    """Read once, at the end: the counter is cleared by a read, and by any reset."""
    frames, side = frames_of(trial), trial.side(INCOMING)
    seen = side.number("device.good_packets") if side else None
    if frames is None or not frames.sent or seen is None:
        return no_data("fact device.good_packets", expected="every frame once")
    return outcome(
        seen == frames.sent,
        expected=f"{frames.sent} frames since the outgoing kernel started the device",
        seen=f"{seen} in the device's own counter",
        evidence="incoming fact device.good_packets (GPRC)",
    )


def went_round(fact: str) -> Callable[[Trial], Outcome]:
    """A descriptor that was refilled in the incoming kernel was written to once more.

    At the kexec the device may still use every descriptor, those refilled before included:
    that is good for `count` more frames than had come, if nobody moves the tail on. `fact` is
    the number of frames that the reader of the ring had seen.
    """

    def ask(trial: Trial) -> Outcome:
        sides = both(trial)
        count = sides[0].number("ring.count") if sides else None
        before = sides[0].number(fact) if sides else None
        after = sides[1].number(fact) if sides else None
        if count is None or before is None or after is None:
            return no_data(f"facts ring.count, {fact}", expected="the ring wraps")
        return outcome(
            after > count + before,
            expected=f"more than {count + before} frames through {count} descriptors",
            seen=f"{before} frames before the kexec, {after} in the end",
            evidence=f"facts ring.count, {fact}",
        )

    return ask


def _trace_has_none(key: _Kind, what: str) -> Callable[[Trial], Outcome]:
    """QEMU's trace has nothing of this kind while traffic ran; and it has something at all."""

    def ask(trial: Trial) -> Outcome:
        trace = trial.seen(DmaEvidence).trace
        if not trace.config_writes:
            return no_data("no write to the device's configuration in qemu-trace.log", expected="0")
        found: Sequence[Noted | CommandWritten] = getattr(trace, key)
        count, at = getattr(trace, f"{key}_count"), places(trial.setting.options)
        return outcome(
            not found,
            expected=f"no {what} while traffic runs",
            seen=f"{count}, first {_event(found[0], at)}" if found else "none",
            evidence="qemu-trace.log",
        )

    return ask


def _event(entry: Noted | CommandWritten, at: Places) -> str:
    """A trace entry in words; its time is relative to "Starting new kernel"."""
    if isinstance(entry, Noted):
        return f"{entry.text} at {entry.ms:+.1f} ms"
    whose = "the bridge above the device" if entry.bdf in at.bridges else "the device"
    return f"PCI_COMMAND of {whose}, {entry.bdf} <- {entry.value:#x} at {entry.ms:+.1f} ms"


class Aborted(NamedTuple):
    """What aborts have left behind."""

    nothing: bool
    said: str


# An IOAS keeps tables of what was mapped once; there are many aborts.
_TABLES_KEPT = 2


def aborted(trial: Trial) -> Aborted | None:
    """Whether aborts left pins, pages of the IOMMU, what is registered with KHO, and the
    configuration of every PCI function as they were; None when nobody looked."""
    side, kho = trial.side(OUTGOING), trial.seen(DmaEvidence).kho
    config, pins, tables = (
        (side.facts.get(f"aborts.{key}") if side else None)
        for key in ("config", "pins", "iommu_pages")
    )
    match = re.match(r"[1-9][0-9]{0,3} functions, ([0-9]{1,4}) changed", config or "")
    before, after = (kho.get(point) for point in ("unpreserved", "aborted"))
    if match is None or pins is None or tables is None or before is None or after is None:
        return None
    pages = [stored_pages(seen) for seen in (before, after)]
    return Aborted(
        nothing=match[1] == pins == "0" and before == after and int(tables) <= _TABLES_KEPT,
        said=f"pins {int(pins):+d}, pages of the IOMMU {int(tables):+d}, registered with KHO"
        f" {pages[1] - pages[0]:+d}, {config}",
    )


def _left_behind(trial: Trial) -> bool:
    """Something was, which is nobody's doing but the kernel's."""
    left = aborted(trial)
    return left is not None and not left.nothing


def aborts_unnoticed(ask: Callable[[Trial], Outcome]) -> Check:
    """The check of a stage that asks `ask`; what is left behind is no matter of the host's time."""
    return Check(
        "aborts_unnoticed",
        "Did no abort disturb the device, or leave anything behind?",
        ask,
        timed=True,
        but=_left_behind,
    )


def _not_gated(trial: Trial) -> Outcome:
    """The second device is gated when it loses bus mastering; the trace does not say which it is.

    That stops QEMU from asking again, so that it is one line.
    """
    trace = trial.seen(DmaEvidence).trace
    if not trace.config_writes:
        return no_data("no write to the device's configuration in qemu-trace.log", expected="1")
    at = places(trial.setting.options)
    off = trace.other_master_off[0].ms if trace.other_master_off else None
    others = [
        entry
        for entry in trace.gated
        if off is not None and entry.ms >= off and "pci_master 0" in entry.text
    ]
    return outcome(
        trace.gated_count == len(others) <= 1,
        expected="no frame held back while traffic runs, except of the second device",
        seen=f"{trace.gated_count}, {len(others)} of the second device"
        + (f"; first {_event(trace.gated[0], at)}" if trace.gated else ""),
        evidence="qemu-trace.log",
    )


def _same_facts(*keys: str) -> Callable[[Trial], Outcome]:
    """The first of these facts that is not the same on both sides, else the last."""

    def ask(trial: Trial) -> Outcome:
        answers = [same_fact(key)(trial) for key in keys]
        return next((answer for answer in answers if answer.status != "PASS"), answers[-1])

    return ask


def _same_registers(trial: Trial) -> Outcome:
    """What failed, by the registers that differ: of 30 one would search for them."""
    answer = _same_facts("device.registers", "device.settings", "device.tail")(trial)
    pairs = list(zip(answer.expected.split(), answer.seen.split(), strict=False))
    unlike = [(one, other) for one, other in pairs if one != other]
    if answer.status != "FAIL" or not unlike:
        return answer
    before, after = (" ".join(words) for words in zip(*unlike, strict=True))
    return answer.model_copy(update={"expected": f"{before}, as before", "seen": after})


_INTX_OFF = 0x4  # of the upper byte of PCI_COMMAND


def intx_is_off(trial: Trial) -> Outcome:
    """On both sides: it could assert its pin while there is nobody whom that reaches."""
    keys = [
        (name, side.facts.get("device.config", ""))
        for name in (OUTGOING, INCOMING)
        if (side := trial.side(name))
    ]
    on = [name for name, header in keys if not int(header[10:12] or "0", 16) & _INTX_OFF]
    return outcome(
        not on,
        expected="INTx is disabled from the preservation on",
        seen=f"enabled in the {on[0]} kernel" if on else "disabled",
        evidence="fact device.config, PCI_COMMAND",
    )


_SIZING_MS = 500.0
"""For that a kernel turns decoding off: 5 ms, and until QEMU's turn comes on a busy host."""


def decoding_is_on(trial: Trial) -> Outcome:
    """Of memory, by the device and the bridges above it, but while BARs are sized."""
    trace, at = trial.seen(DmaEvidence).trace, places(trial.setting.options)
    answer = outcome(
        trace.undecoded_ms <= _SIZING_MS,
        expected=f"memory is decoded all the time, but for {_SIZING_MS:.0f} ms at most",
        seen=f"not for {trace.undecoded_ms:.0f} ms"
        + (f", from {_event(trace.undecoded, at)}" if trace.undecoded else ""),
        evidence="qemu-trace.log, pci_cfg_write",
    )
    still = trial.host.stood_still() if trial.host else None
    return disturbed(answer, still) if answer.fell and still else answer


def always_configured(trial: Trial) -> Outcome:
    """What is not seen when two looks are compared."""
    off = intx_is_off(trial)
    return off if off.fell else decoding_is_on(trial)


def _same_config(trial: Trial) -> Outcome:
    """Of the device all of it, in the device and as vfio shows it; of the bridges the headers, what
    is set up in their PCI Express capabilities, how often each is enabled, and the drivers of the
    first one's services."""
    keys = ("device.bdf", "device.path", "device.config", "device.capabilities")
    more = ("device.vfio_config", "device.vfio_info", "port.config", "port.services")
    answer = _same_facts(*keys, *more, "bridges.config", "device.functions")(trial)
    if answer.status == "PASS":
        return meanwhile if (meanwhile := always_configured(trial)).fell else answer
    if answer.status != "FAIL" or not answer.evidence.endswith(("config", "capabilities")):
        return answer
    key, sides = answer.evidence.removeprefix("fact "), both(trial)
    where = _first_unlike(*(side.facts[key] for side in sides)) if sides else ""
    return answer.model_copy(update={"expected": f"{key} as before", "seen": where})


def _first_unlike(before: str, after: str) -> str:
    """Of two dumps in hexadecimal digits the first byte that differs, by its place in the dump."""
    for at in range(0, max(len(before), len(after)), 2):
        one, other = before[at : at + 2], after[at : at + 2]
        if one != other:
            return (
                f"byte {at // 2:#x} of the dump was {one or 'not there'}, is {other or 'not there'}"
            )
    return "the same"


def _head_went_on(trial: Trial) -> Outcome:
    """The device's own index moved by as many frames as it can have written between two looks.

    Where many were still to be written at a look, it should have: then, what was due by the time.
    """
    sides, seen = both(trial), trial.seen(DmaEvidence)
    count = sides[0].number("ring.count") if sides else None
    before = sides[0].number("device.head") if sides else None
    after = sides[1].number("device.head") if sides else None
    certain, due = seen.between_heads, seen.between_heads_due
    if not count or before is None or after is None or certain is None or due is None:
        return no_data("facts device.head, t.head, ring.count", expected="the head moves on")
    sure = certain[1] - certain[0] < count // _SURE_OF_RING
    least, most = certain if sure else due
    moved = (after - before) % count
    answer = outcome(
        least > 0 and (moved - least) % count <= most - least,
        expected=f"on from {before} by {least} to {most} frames, round a ring of {count}",
        seen=f"{after}, {moved} further",
        evidence="facts device.head (RDH), t.head; device-sent.bin, device-landed.bin",
    )
    if most - least < count // _SURE_OF_RING:
        return answer
    return disturbed(answer, f"the host kept up to {most - least} frames on their way")


def _other_silent(trial: Trial) -> Outcome:
    other = trial.seen(DmaEvidence).other
    if other is None or not other.before.sent or not other.after.sent:
        return no_data("other-sent.bin, other-landed.bin", expected="silence from the kexec on")
    last, before, after = other.last, other.before, other.after
    return outcome(
        # Had it fallen silent earlier, the kexec would not be what silenced it.
        last.landed > 0 and after.fresh == 0,
        expected=f"frames until the kexec, then none of {after.sent} that are sent",
        seen=f"{before.landed} of {before.sent} landed before ({last.landed} of"
        f" {last.sent} in the last {last.ms / 1000:.0f} s), {after.fresh} after",
        evidence="other-sent.bin, other-landed.bin",
    )


WRITES_ON = (
    Check(
        "preserved_meanwhile", "Did frames arrive during preserve and load?", _meanwhile, timed=True
    ),
    Check(
        "dma_in_gap",
        "Did the host see frames land in RAM in the gap?",
        _dma_in_gap,
        barely=_late_in_gap,
    ),
    Check(
        "no_silence",
        "Was it never silent in the gap?",
        _no_silence,
        barely=_silent_in_gap,
    ),
    Check(
        "never_held_up",
        "Did it never keep frames waiting, in the gap or outside it?",
        _never_held_up,
    ),
)
HOST_SAW_ALL = Check("host_saw_all", "Did the host see every frame land once?", host_saw_all())
DEVICE_COUNTED_ALL = Check(
    "device_counted_all", "Did the device count every frame?", _device_counted_all
)
LEFT_ALONE = (
    Check(
        "no_device_reset",
        "Was it never reset, and never cut off by a bridge above it?",
        _trace_has_none("resets", "reset"),
    ),
    Check(
        "bus_mastering_kept",
        "Was bus mastering never cleared, in the device and in the bridges above it?",
        _trace_has_none("command", "PCI_COMMAND without bus mastering"),
    ),
    Check(
        "stayed_in_d0",
        "Did it stay in D0, and each bridge above it?",
        _trace_has_none("power", "change of its power state"),
    ),
    Check("never_gated", "Did QEMU never hold a frame back?", _not_gated),
)
SAME_DEVICE = (
    Check(
        "same_config",
        "Are the configurations of device and bridges unchanged, and INTx off?",
        _same_config,
    ),
    Check(
        "same_registers",
        "Are its registers unchanged, those of the ring and those that a driver sets up?",
        _same_registers,
    ),
    Check("head_went_on", "Did the device's index only advance?", _head_went_on),
)
OTHER_SILENT = Check(
    "other_silent", "Is the second device silent from the kexec on?", _other_silent
)
