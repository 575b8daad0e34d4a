# SPDX-License-Identifier: GPL-2.0-only
"""The build id as readelf sees it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kernel.image.elf import build_id, notes


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_the_build_id_is_readelfs(tmp_path: Path) -> None:
    program = tmp_path / "a.so"
    command = ["gcc", "-shared", "-nostdlib", "-xc", "-", "-Wl,--build-id=sha1", "-o", str(program)]
    subprocess.run(command, input=b"int a;\n", check=True)
    said = subprocess.run(["readelf", "-n", program], capture_output=True, text=True, check=True)
    match = re.search(r"Build ID: ([0-9a-f]{40})", said.stdout)
    assert match and build_id(program) == match[1]


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
def test_none_where_there_is_none(tmp_path: Path) -> None:
    program = tmp_path / "a.so"
    command = ["gcc", "-shared", "-nostdlib", "-xc", "-", "-Wl,--build-id=none", "-o", str(program)]
    subprocess.run(command, input=b"int a;\n", check=True)
    assert build_id(program) is None
    (tmp_path / "text").write_text("no ELF at all, but longer than a header" * 4)
    assert build_id(tmp_path / "text") is None


def test_notes_are_padded() -> None:
    one = struct.pack("<III", 4, 3, 1) + b"Xen\0" + b"abc\0"
    two = struct.pack("<III", 4, 2, 3) + b"GNU\0" + b"id\0\0"
    assert notes(one + two, 4) == [(b"Xen", 1, b"abc"), (b"GNU", 3, b"id")]
    assert notes(one[:8], 4) == []
