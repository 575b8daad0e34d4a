# SPDX-License-Identifier: GPL-2.0-only
"""A program that failed without a word, and paths that not everything can be called by."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from common.errors import HarnessError
from common.host.processes.how_ended import how_ended
from common.machine.hypervisor import _plain_folder
from common.run.initramfs import make_initramfs


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (1, "x: no\n\n", "x: no"),
        (1, "", "exit status 1, without a message"),
        (-9, "", "ended by SIGKILL"),
        (137, "", "ended by SIGKILL"),
        (-25, "half", "ended by SIGXFSZ (ulimit -f, the largest file allowed) after 'half'"),
    ],
)
def test_how_a_program_ended(status: int, said: str, words: str) -> None:
    assert how_ended(status, said) == words


def test_a_tool_that_was_killed_is_said_to_be(tmp_path: Path) -> None:
    tool = tmp_path / "gen_init_cpio"
    tool.write_text("#!/bin/sh\nkill -9 $$\n")
    tool.chmod(0o755)
    with pytest.raises(HarnessError, match=r"gen_init_cpio could not make .*: ended by SIGKILL"):
        make_initramfs({}, gen_init_cpio=tool, target=tmp_path / "out")


@pytest.mark.parametrize("name", ["a b", "a%b", "a?b", "a" * 100])
def test_a_folder_that_cannot_be_named_everywhere_is_not_used(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    assert _plain_folder() == "/tmp"
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert _plain_folder() == "/var/tmp"
