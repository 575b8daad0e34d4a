# SPDX-License-Identifier: GPL-2.0-only
"""Stored lines, read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.record.stored_file import read_stamped


@pytest.mark.parametrize("text", ["a\u2028b", "a\u0085b", "a\x0cb", "", "\x00"])
def test_what_a_console_says_is_no_end_of_a_stored_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "console.jsonl"
    path.write_text("".join(json.dumps([t, text], ensure_ascii=False) + "\n" for t in (1, 2)))
    assert [(line.t, line.text) for line in read_stamped(path)] == [(1, text), (2, text)]


def test_nothing_said(tmp_path: Path) -> None:
    (tmp_path / "console.jsonl").touch()
    assert read_stamped(tmp_path / "console.jsonl") == ()


def test_half_a_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "console.jsonl").write_text('[1, "a"]\n[2, "b')
    with pytest.raises(ValueError, match=r"console\.jsonl, line 2: Invalid JSON"):
        read_stamped(tmp_path / "console.jsonl")
