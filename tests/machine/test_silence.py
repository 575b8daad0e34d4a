# SPDX-License-Identifier: GPL-2.0-only
"""What a machine says while the host looks at it counts, however long the look takes."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from common.machine.machine import Machine, MachineSilent
from common.machine.patience import Patience

_SILENCE = 0.1


class Dialogue:
    """Says nothing for so many looks, then a line."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.match: re.Match[bytes] | None = None

    def expect(self, pattern: bytes, *, timeout: float) -> None:
        assert timeout
        self.looks -= 1
        if self.looks >= 0:
            raise pexpect.TIMEOUT("")
        self.match = re.match(pattern, b"# side=outgoing\n")


class SlowLook:
    def silent(self) -> str | None:
        time.sleep(2 * _SILENCE)
        return None

    def reset(self) -> str | None:
        return None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """One that is looked at as soon as it says nothing, and whose dialogue a test gives."""
    monkeypatch.setattr("common.machine.machine._SILENT_SECONDS", 0)
    (tmp_path / "console.log").write_text("the last line\n")
    with Patience(tmp_path) as patience:
        found = Machine.__new__(Machine)
        found.__dict__ |= {
            "_heard": deque[str](),
            "_patience": patience,
            "_console_spoke": False,
            "watch": SlowLook(),
            "folder": tmp_path,
        }
        yield found


def next_line(machine: Machine, looks: int) -> str:
    machine.__dict__["dialogue"] = Dialogue(looks)
    return machine.next_line(silence=_SILENCE, deadline=machine.deadline(60))


def test_a_line_that_came_during_a_long_look_is_read(machine: Machine) -> None:
    assert next_line(machine, 1) == "# side=outgoing"


def test_silence_after_the_look_is_silence(machine: Machine) -> None:
    with pytest.raises(MachineSilent, match="the console's last line: the last line"):
        next_line(machine, 1000)


def test_a_long_silence_has_the_cpus_looked_at_twice(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.machine.machine._LOOK_AGAIN_SECONDS", 0)
    looked: list[bool] = []
    machine.__dict__["_note_look"] = lambda *, anew: looked.append(anew)
    machine.__dict__["watch"] = None
    machine.__dict__["dialogue"] = Dialogue(100)
    assert machine.next_line(silence=60, deadline=machine.deadline(60)) == "# side=outgoing"
    assert looked == [True, False]
