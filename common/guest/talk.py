# SPDX-License-Identifier: GPL-2.0-only
"""A guest's TCP connection through its NIC: its peer on the host, and what that saw."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from common.host.processes.precedence import prefer
from common.paths import CHECKOUT
from common.record.dialogue import Stored
from common.record.raw import RawTrial
from common.record.stored_file import Count, Stamp, Strict, in_order, read_rows
from common.record.trial_files import TrialFile

_LOG = "peer.jsonl"
FILE = TrialFile(_LOG, needed=False)


class PeerProcess:
    """common/guest/peer.py beside a machine: it listens on `port`, and sends to `device_port`."""

    def __init__(self, folder: Path, *, nonce: str, port: int, device_port: int) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "common.guest.peer", "--nonce", nonce),
                *("--port", str(port), "--device-port", str(device_port)),
                *("--log", str(folder.resolve() / _LOG)),
            ],
            stdin=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
        )
        prefer(self._process.pid)

    def tell(self, word: Literal["hold", "go"]) -> None:
        """Whether it may send."""
        assert self._process.stdin
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """It has ended, and its log is on disk."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


class Entry(Strict):
    """A line of its log."""

    t: Stamp
    what: Literal["opened", "ended", "damaged", "asked", "answered", "wrong", "frame"]
    number: Count


_ENTRIES = TypeAdapter(list[Entry])


class Talk(Stored):
    """Questions that the guest answered, over how many connections."""

    connections: int = 0
    ended: int = 0
    """Connections that the guest closed or reset."""
    damaged: int = 0
    """Packets of its with a wrong checksum."""
    wrong: int = 0
    """Answers that are none."""
    before: int = 0
    """Answered before the guest was stopped."""
    across: int = 0
    """Asked before it was resumed, and answered after that."""
    after: int = 0
    """Asked and answered after it was resumed."""
    frames: int = 0
    """That its peer sent, those of ARP and those sent again included."""


def read_entries(raw: RawTrial) -> tuple[Entry, ...]:
    """The log, empty where there is none. Raises ValueError where it is damaged, OSError."""
    path = raw.folder / _LOG
    if not path.exists():
        return ()
    entries = read_rows(path, _ENTRIES)
    in_order(_LOG, [entry.t for entry in entries])
    raw.within(_LOG, *(entry.t for entry in (*entries[:1], *entries[-1:])))
    return tuple(entries)


def talk_of(entries: Sequence[Entry], stopped: int | None, resumed: int | None) -> Talk | None:
    """What they show of a guest that stood still between these times; None without entries."""
    if not entries:
        return None
    kinds = Counter(entry.what for entry in entries)
    asked = {entry.number: entry.t for entry in entries if entry.what == "asked"}
    parts: Counter[str] = Counter()
    for entry in entries:
        if entry.what == "answered":
            parts[_part(asked.get(entry.number), entry.t, stopped, resumed)] += 1
    return Talk(
        connections=kinds["opened"],
        ended=kinds["ended"],
        damaged=kinds["damaged"],
        wrong=kinds["wrong"] + parts["unasked"],
        frames=kinds["frame"],
        **{part: parts[part] for part in ("before", "across", "after")},
    )


def _part(asked: int | None, answered: int, stopped: int | None, resumed: int | None) -> str:
    if asked is None:
        return "unasked"
    if stopped is None or answered <= stopped:
        return "before"
    return "after" if resumed is not None and asked >= resumed else "across"


def frames_within(entries: Iterable[Entry], begin: int, end: int) -> int:
    """How many frames the peer sent between two times (ns)."""
    return sum(entry.what == "frame" and begin <= entry.t <= end for entry in entries)
