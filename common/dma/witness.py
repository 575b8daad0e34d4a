# SPDX-License-Identifier: GPL-2.0-only
"""Witnesses of a device's DMA on the host: the sender's log, the machine's RAM, QEMU's trace.

None of them is the kernel under test. A frame counts as landed in the gap only if it was
seen in RAM between the host's stamps of "Starting new kernel" and of the first line of the
incoming kernel's userspace; what was sent long before it was seen may have been queued by
QEMU, and is counted apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import NamedTuple

from pydantic import TypeAdapter

from common.dma import socket_buffer
from common.dma.after import LOG as ANEW
from common.dma.after import after
from common.dma.credit import Credit
from common.dma.cut_off import cuts_off
from common.dma.evidence import (
    BUS_MASTER,
    MEMORY,
    CommandWritten,
    DeviceTrace,
    DmaEvidence,
    Noted,
    OtherDevice,
    Socket,
)
from common.dma.frames import Away, Landing, Window, judge, look_at, read_landed, read_sent
from common.dma.igb import Places, places, udp_ports
from common.errors import HarnessError
from common.host.processes.precedence import prefer
from common.machine.helper import HostHelper, MachineView
from common.machine.kho_counts import KhoCounts
from common.machine.ram import MachineRam
from common.paths import CHECKOUT
from common.record.clocks import host_times
from common.record.dialogue import Side, Stored
from common.record.host.away import settled, unproved
from common.record.qemu.trace import ConfigWrite, config_write
from common.record.raw import RawTrial
from common.record.stored_file import KhoSeen, read_json
from common.record.trial_files import TrialFile

OTHER_EVERY = 50  # the second device gets one of so many frames, and its ring is not refilled
# A VF's reset is none of its PF; and no device with VFs is preserved.
RESETS = frozenset({"e1000e_core_ctrl_sw_reset", "e1000e_cb_qdev_reset_hold"})
GATED = frozenset({"e1000x_rx_can_recv_disabled", "e1000x_rx_link_down", "e1000x_rx_disabled"})
TRACES = (
    "pci_cfg_write",
    "pci_pm_transition",
    "e1000x_rx_link_down",
    "e1000x_rx_disabled",
    "e1000x_rx_can_recv_disabled",
    "e1000e_core_ctrl_sw_reset",
    "e1000e_cb_qdev_reset_hold",
)
KHO = "kho.json"
_FRAME_LOG = 24 << 20  # bytes: a million landings


def frame_logs(*names: str) -> tuple[TrialFile, ...]:
    """Logs of frames, of a trial that came to its traffic."""
    return tuple(TrialFile(name, needed=False, most=_FRAME_LOG) for name in names)


FILES = (
    *frame_logs("device-sent.bin", "device-landed.bin", "other-sent.bin", "other-landed.bin"),
    *frame_logs(ANEW),
    TrialFile("socket.json", needed=False),
    TrialFile(KHO, needed=False),
    TrialFile("away-sender.jsonl", needed=False),
    TrialFile("away-watcher.jsonl", needed=False),
)
_COMMAND = 0x04
# Frames are on their way from the sender's socket to RAM; then nothing more will come.
_DRAIN_SECONDS = 0.2
# The last rendezvous before the kexec, of stages 2 and 3.
_LEFT = ("await.reboot", "await.snapshot-outgoing")
# The rendezvous at which the incoming side has let go of the device, of stages 2 and 3.
_LET_GO = ("await.released", "await.snapshot-released")
# The host's time of a look at the device is known to so much.
_CLOCK_NS = 20_000_000
# A frame is written so long after it was sent, once the host has run who has a part in it.
_DUE_NS = 100_000_000
_PATH = ("sender", "qemu")
# "The last moments" are as long as so many frames of the second device take.
_LAST_FRAMES = 5
# Of each kind of event that must not be, so many are told.
_NAMED = 8


_SOCKET = TypeAdapter(Socket)
_KHO = TypeAdapter(KhoSeen)


class FrameWitness:
    """Sender and watcher beside a machine; both are processes of their own."""

    address_fact = "pa"
    """What the workload calls the address of a ring that it gave to a device."""
    unread_from, unread_to = "# await pause", "# t.adopted="
    """Between these lines nobody tells the device what was given back to it. After that all that
    is said of a steady rate is over, and the ring goes round sooner."""
    from_then_on = "faster"
    """What the sender is told then."""
    other_room = 1024
    """Descriptors of the second device, which nobody refills."""

    def __init__(self, machine: MachineView) -> None:
        self.machine = machine
        self._facts: dict[str, str] = {}
        self._buffer: int | None = None
        self._running: list[subprocess.Popen[str]] = []
        self._kho = KhoCounts(lambda: MachineRam(machine.process.pid))
        self._credit = machine.scratch / "credit"
        self._rests = False
        """For good: what was sent now would land in memory that is no longer the device's."""

    def on_line(self, text: str) -> None:
        """Traffic starts at `await traffic`, rests at `await quiet`, ends at `await silence`."""
        if self._kho.on_line(text):
            (self.machine.folder / KHO).write_bytes(_KHO.dump_json(self._kho.counts) + b"\n")
        if text.startswith(("# ring.", "# other.ring.", "# anew.ring.")):
            key, _, value = text.removeprefix("# ").partition("=")
            self._facts.setdefault(key, value)
        elif text == "# await traffic":
            self._start_watcher()
            self.start_sender()
        elif text == "# await silence":
            self.stop()
        elif text == "# await anew" and self._running:
            self._watch_anew()
        elif not self._running:
            return
        elif text.startswith(self.unread_from):
            self._tell(self._running[0], "hold")
        elif text.startswith(self.unread_to):
            self._tell(self._running[0], "release")
            if not self._rests:
                self._tell(self._running[-1], self.from_then_on)
        elif text == "# await quiet":
            self._rests = True
            self._tell(self._running[-1], "hold")
            time.sleep(_DRAIN_SECONDS)

    def _parameter(self, name: str, otherwise: str = "") -> str:
        words = [w for w in self.machine.spec.cmdline.split() if w.startswith(f"stage.{name}=")]
        return words[-1].partition("=")[2] if words else otherwise

    def _start(self, module: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", f"common.dma.{module}", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        prefer(process.pid)
        self._running.append(process)
        return process

    def _start_watcher(self) -> None:
        rings: list[object] = []
        folder = self.machine.folder.resolve()
        Credit.of(self._credit, new=True)
        at = places({"switch": self._parameter("switch", "0")})
        for name, bdf, prefix in (("device", at.device, "ring"), ("other", at.other, "other.ring")):
            address = self._facts[f"{prefix}.{self.address_fact}"]
            count = self._facts[f"{prefix}.count"]
            rings += ["--ring", bdf, address, count, folder / f"{name}-landed.bin"]
        nonce = self._parameter("nonce")
        process = self._start(
            *("watcher", "--pid", self.machine.process.pid, "--nonce", nonce),
            *("--folder", folder, "--credit", self._credit, *self.watcher_options(), *rings),
        )
        _must_see(process)

    def _watch_anew(self) -> None:
        """The first device's ring is where its owner has placed it anew. The watcher of the old one
        stays: what the sender may send is what it has said."""
        credit = self.machine.scratch / "credit-anew"
        Credit.of(credit, new=True)
        at = places({"switch": self._parameter("switch", "0")})
        address, count = (self._facts[f"anew.ring.{key}"] for key in (self.address_fact, "count"))
        log = self.machine.folder.resolve() / ANEW
        process = self._start(
            *("watcher", "--pid", self.machine.process.pid, "--nonce", self._parameter("nonce")),
            *("--folder", self.machine.scratch, "--credit", credit, *self.watcher_options()),
            *("--ring", at.device, address, count, log),
        )
        self._running.insert(1, self._running.pop())
        _must_see(process)

    def watcher_options(self) -> list[object]:
        """Further arguments of the watcher; none where descriptors hold physical addresses."""
        return []

    def start_sender(self, *, prefix: str = "", first: int = 0) -> None:
        """Send to both devices, frame `first` first; the logs' names begin with `prefix`.

        As much as the ring takes, where the watcher says how much that is.
        """
        credit = ("--credit", self._credit) if self._running else ()
        port, other_port = udp_ports(self.machine.spec.devices)
        self._buffer = socket_buffer.enlarge(self.machine.process.pid, port)
        folder = self.machine.folder.resolve()
        self._start(
            *("sender", "--nonce", self._parameter("nonce"), "--first", first),
            *("--rate", self._parameter("rate"), "--port", port),
            *("--log", folder / f"{prefix}device-sent.bin", "--other-port", other_port),
            *("--other-log", folder / f"{prefix}other-sent.bin", "--other-every", OTHER_EVERY),
            *("--other-room", self.other_room, *credit),
        )
        self._tell(self._running[-1], "go")

    @staticmethod
    def _tell(process: subprocess.Popen[str], word: str) -> None:
        assert process.stdin
        process.stdin.write(word + "\n")
        process.stdin.flush()

    def stop(self) -> None:
        """End the sender, let what it sent land, end the watcher."""
        if not self._running:
            return
        # The watcher was started first.
        *watcher, sender = self._running
        _end(sender)
        time.sleep(_DRAIN_SECONDS)
        for process in watcher:
            _end(process)
        self._running.clear()
        port = udp_ports(self.machine.spec.devices)[0]
        found = {"drops": socket_buffer.drops(port), "buffer": self._buffer}
        (self.machine.folder / "socket.json").write_text(json.dumps(found) + "\n")


def _must_see(watcher: subprocess.Popen[str]) -> None:
    """Raises HarnessError where the watcher says that it cannot."""
    assert watcher.stdout
    if (said := watcher.stdout.readline()) != "ready\n":
        raise HarnessError(
            f"the watcher of the machine's RAM cannot see: {said.strip() or 'it ended'}"
        )


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.close()
    process.wait(timeout=30)


@contextmanager
def frame_witness(machine: MachineView) -> Iterator[HostHelper]:
    """The helper of a stage whose descriptors hold physical addresses."""
    witness = FrameWitness(machine)
    try:
        yield witness
    finally:
        witness.stop()


def read_witness(raw: RawTrial) -> DmaEvidence:
    """What the witnesses of a stored trial saw. Raises OSError or ValueError when damaged."""
    folder, sides = raw.folder, raw.sides
    kexec = raw.console.kexecs[0] if raw.console.kexecs else None
    incoming = next((side for side in sides if side.name == "incoming"), None)
    left = _left(sides)
    found = DmaEvidence(
        trace=_look_at_trace(raw, traffic_window(sides), kexec),
        left_ms=(left - kexec) / 1e6 if left and kexec else None,
        kho=read_json(folder / KHO, _KHO) if (folder / KHO).exists() else {},
    )
    if not (folder / "device-landed.bin").exists():
        return found
    sent, landed = _read_logs(raw, "device")
    other_sent, other_landed = _read_logs(raw, "other")
    gap = (kexec, incoming.started) if kexec and incoming else None
    away = unproved(raw.away) if raw.host else {}
    heads = _between_heads(sides, sent, landed, away)
    return found.model_copy(
        update={
            "frames": judge(sent, landed, gap, away),
            "between_heads": heads.certain if heads else None,
            "between_heads_due": heads.due if heads else None,
            "after": after(folder, sides, sent, landed),
            "socket": read_json(folder / "socket.json", _SOCKET),
            "other": _other(other_sent, other_landed, kexec, sides)
            if kexec and other_sent
            else None,
        }
    )


def _read_logs(raw: RawTrial, name: str) -> tuple[list[int], list[Landing]]:
    """(send times in ns of the frames to the device of that name, what landed of them in RAM)."""
    logs = f"{name}-sent.bin", f"{name}-landed.bin"
    sent, landed = read_sent(raw.folder / logs[0]), read_landed(raw.folder / logs[1])
    raw.within(logs[0], *sent[:1], *sent[-1:])
    raw.within(logs[1], *(frame.seen for frame in (*landed[:1], *landed[-1:])))
    return sent, landed


def _other(
    sent: list[int], landed: list[Landing], kexec: int, sides: tuple[Side, ...]
) -> OtherDevice:
    """The second device before the kexec, in the last moments of the old kernel, and after."""
    end = max([*sent, *(landing.seen for landing in landed)])
    stamps = {key: stamp for side in sides for key, stamp in side.stamps.items()}
    left = _left(sides) or kexec
    finished = stamps.get("t.taker_died", stamps.get("t.finished"))
    # Whoever uses the device next may get the same pages for it.
    until = stamps.get("t.taken_again", end)

    def look(begin: int, until: int) -> Window:
        return look_at(sent, landed, begin, until, {})

    return OtherDevice(
        before=look(sent[0], kexec),
        last=look(sent[max(0, bisect_left(sent, left) - _LAST_FRAMES)], left),
        after=look(kexec, end),
        finished=look(finished, until) if finished is not None else None,
    )


def _left(sides: tuple[Side, ...]) -> int | None:
    """When the outgoing side last waited for the host: what is done at the kexec comes after."""
    stamps = {key: stamp for side in sides for key, stamp in side.stamps.items()}
    return next((stamps[key] for key in _LEFT if key in stamps), None)


class _Heads(NamedTuple):
    """The least and the most frames that the device can have written between both looks at its
    head: certainly, and where it writes what is due."""

    certain: tuple[int, int]
    due: tuple[int, int]


def _between_heads(
    sides: tuple[Side, ...], sent: list[int], landed: list[Landing], away: Away
) -> _Heads | None:
    """What was not sent it had not written. What was seen in RAM it had, and all that was sent
    before; one that is due wrote also what was sent a while ago, unless the host kept it."""
    times = host_times(sides, "t.head")
    if len(times) != 2:
        return None
    first, last = (time - _CLOCK_NS for time in times)
    # Not those that were seen: a frame whose descriptor leads to unmapped memory never is.
    written = list(accumulate((frame.number + 1 for frame in landed), max, initial=0))

    def certain(t: int) -> int:
        return written[bisect_right(landed, t, key=lambda frame: frame.seen)]

    def due(t: int) -> int:
        least, found = certain(t), bisect_right(sent, t - _DUE_NS)
        while found > least and settled(sent[found - 1], away, _PATH) > t - _DUE_NS:
            found -= 1
        return max(least, found)

    sent_first, sent_last = (bisect_right(sent, time + _CLOCK_NS) for time in times)
    return _Heads(
        (certain(last) - sent_first, sent_last - certain(first)),
        (due(last) - sent_first, sent_last - due(first)),
    )


def traffic_window(sides: tuple[Side, ...]) -> tuple[int, int] | None:
    """(start, end) of the traffic in the host's ns, as the workload asked for it; None without."""
    begins = [side.stamps["await.traffic"] for side in sides if "await.traffic" in side.stamps]
    if not begins:
        return None
    ends = [side.stamps["await.silence"] for side in sides if "await.silence" in side.stamps]
    return begins[0], ends[-1] if ends else sides[-1].ended


def _look_at_trace(raw: RawTrial, window: tuple[int, int] | None, kexec: int | None) -> DeviceTrace:
    """Counts of what must not be, with the first of each, between start and end of traffic."""
    if window is None:
        return DeviceTrace()
    zero, at = kexec or window[0], places(raw.setting.options)
    # When its owner ends, the kernel lets go of it.
    stamps = raw.sides[-1].stamps
    end = next((stamps[key] for key in _LET_GO if key in stamps), window[1])
    counts: Counter[str] = Counter()
    noted: dict[str, list[Noted]] = {"power": [], "resets": [], "gated": []}
    cleared: dict[str, list[CommandWritten]] = {"command": [], "other_master_off": []}
    last: CommandWritten | None = None
    undecoded = _Undecoded()
    for event in raw.trace:
        if not window[0] <= event.t <= max(window[1], end):
            continue
        ms = round((event.t - zero) / 1e6, 1)
        write = config_write(event)
        if event.t > window[1]:
            if write and _is_command(write, at.device):
                last = CommandWritten(ms=ms, bdf=write.bdf, value=write.value)
            continue
        counts["events"] += 1
        if write:
            ours = write.bdf in (at.device, *at.bridges)
            if _is_command(write, at.device, *at.bridges):
                undecoded.hear(CommandWritten(ms=ms, bdf=write.bdf, value=write.value))
            counts["config_writes"] += ours
            counts["config_writes_incoming"] += ours and kexec is not None and event.t > kexec
            if done := cuts_off(write, at):
                where = f"{write.bdf} @{write.offset:#x} <- {write.value:#x}"
                noted["resets"].append(Noted(ms=ms, text=f"{done}: {where}"))
            if _clears_master(write, at):
                kind = "other_master_off" if write.bdf == at.other else "command"
                cleared[kind].append(CommandWritten(ms=ms, bdf=write.bdf, value=write.value))
        elif event.name == "pci_pm_transition" and any(
            bdf in event.text for bdf in (at.device, *at.bridges)
        ):
            noted["power"].append(Noted(ms=ms, text=event.text))
        elif event.name in RESETS or event.name in GATED:
            kind = "resets" if event.name in RESETS else "gated"
            noted[kind].append(Noted(ms=ms, text=f"{event.name} {event.text}".strip()))
    undecoded.end(round((window[1] - zero) / 1e6, 1))
    found: dict[str, Sequence[Stored]] = {**noted, **cleared}
    return DeviceTrace.model_validate(
        {**counts, "last_command": last}
        | {"undecoded": undecoded.first, "undecoded_ms": undecoded.ms}
        | {f"{kind}_count": len(entries) for kind, entries in found.items()}
        | {kind: tuple(entries[:_NAMED]) for kind, entries in found.items()}
    )


class _Undecoded:
    """The longest time in which one of several devices decoded no memory."""

    def __init__(self) -> None:
        self.first: CommandWritten | None = None
        self.ms = 0.0
        self._off: dict[str, CommandWritten] = {}

    def hear(self, write: CommandWritten) -> None:
        if not write.value & MEMORY:
            self._off.setdefault(write.bdf, write)
        elif off := self._off.pop(write.bdf, None):
            self._note(off, write.ms)

    def end(self, ms: float) -> None:
        for off in self._off.values():
            self._note(off, ms)

    def _note(self, off: CommandWritten, until: float) -> None:
        if until - off.ms > self.ms:
            self.first, self.ms = off, round(until - off.ms, 1)


def _clears_master(write: ConfigWrite, at: Places) -> bool:
    off = not write.value & BUS_MASTER
    return off and _is_command(write, at.device, *at.bridges, at.other)


def _is_command(write: ConfigWrite, *bdfs: str) -> bool:
    return write.bdf in bdfs and write.offset == _COMMAND
