# SPDX-License-Identifier: GPL-2.0-only
"""A guest that falls silent while the host waits for it: the machine's CPUs are looked at, once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from common.guest.lines import GUEST
from common.guest.qemu import Failed, OurGuest
from common.machine.helper import MachineView

_STILL, _WAIT = 0.1, 0.6


class Bench:
    """A guest, the other end of its line, and how often the machine was looked at."""

    def __init__(self, folder: Path) -> None:
        self.looks = 0
        path = folder / "line"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            machine = SimpleNamespace(
                folder=folder, ports={GUEST: path}, note_state=self._count_look
            )
            self.guest = OurGuest(cast(MachineView, machine), control="", gib=0, rounds=True)
            self.line = listening.accept()[0]

    def _count_look(self) -> None:
        self.looks += 1

    def beat(self, number: int) -> None:
        self.line.sendall(f"beat n={number}\n".encode())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("common.guest.qemu._STILL_SECONDS", _STILL)
    found = Bench(tmp_path)
    with found.line:
        yield found
        found.guest.close()


def test_a_guest_that_says_nothing_is_looked_at_once(bench: Bench) -> None:
    with pytest.raises(Failed, match="the guest did not run on within 1 s"):
        bench.guest.wait(lambda _: True, what="run on", seconds=_WAIT)
    assert bench.looks == 1


def test_a_beat_that_was_awaited_needs_no_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.guest.qemu._STILL_SECONDS", 60)
    done = threading.Event()

    def beat_on() -> None:
        number = 0
        while not done.wait(0.01):
            number += 1
            bench.beat(number)

    beating = threading.Thread(target=beat_on)
    beating.start()
    assert bench.guest.wait(lambda beat: beat.number("n") > 2, what="run").number("n") > 2
    done.set()
    beating.join()
    assert bench.looks == 0


def test_a_beat_that_does_not_satisfy_is_waited_past(bench: Bench) -> None:
    bench.beat(1)
    with pytest.raises(Failed):
        bench.guest.wait(lambda beat: beat.number("n") == 2, what="run", seconds=_WAIT)
    assert bench.looks == 1
