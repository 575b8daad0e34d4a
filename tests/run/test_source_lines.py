# SPDX-License-Identifier: GPL-2.0-only
"""File and line of a function of a kernel that was built without line tables: a small one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.run.post_mortem.source_lines import lines_of

SOURCE = """\
extern volatile int *where;

__attribute__((noinline)) static int helper(int value)
{
	return value * 3;
}

int early_fault(int value)
{
	value = helper(value);
	*where = value;
	return value + 1;
}
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worktree in a cache, with the build folder of a kernel of one object."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc here: ./kexec-stages installs it")
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path))
    (tmp_path / "locks").mkdir()
    tree = tmp_path / "sources" / "ident" / "tree"
    folder = tree / ".o-key"
    (folder / "mm").mkdir(parents=True)
    (tree / "mm").mkdir()
    (tree / "mm" / "early.c").write_text(SOURCE)
    command = "gcc -Wp,-MMD,mm/.early.o.d -O2 -c -o mm/early.o ../mm/early.c"
    subprocess.run(command.split(), cwd=folder, check=True)
    (folder / "mm" / ".early.o.cmd").write_text(
        f"savedcmd_mm/early.o := ccache {command}\n\nx := y\n"
    )
    return SimpleNamespace(
        key="key", vmlinux=Path("none"), meta=SimpleNamespace(worktree="ident", flags=["gcc"])
    )


def name_in(folder: Path, function: str, offset: int) -> str:
    said = subprocess.run(
        ["nm", "-S", "mm/early.o"], cwd=folder, capture_output=True, text=True, check=True
    )
    found = re.search(rf"^\w+ (\w+) T {function}$", said.stdout, re.MULTILINE)
    assert found
    return f"{function}+{offset:#x}/{int(found[1], 16):#x}"


def build_folder(tmp_path: Path) -> Path:
    return tmp_path / "sources" / "ident" / "tree" / ".o-key"


def test_the_object_is_compiled_once_more(kernel: Any, tmp_path: Path) -> None:
    name = name_in(build_folder(tmp_path), "early_fault", 0)
    before = {path: path.read_bytes() for path in build_folder(tmp_path).rglob("*.o")}
    found = lines_of(kernel, [name, name, "early_fault+0x0/0xfff", "nobody+0x0/0x1", "?"])
    assert list(found) == [name]
    assert re.fullmatch(r"mm/early\.c:(8|9|10)", found[name])
    assert {path: path.read_bytes() for path in build_folder(tmp_path).rglob("*.o")} == before


def test_a_kernel_like_it_will_do_where_its_own_objects_are_gone(
    kernel: Any, tmp_path: Path
) -> None:
    name = name_in(build_folder(tmp_path), "early_fault", 0)
    other = tmp_path / "sources" / "other" / "tree"
    other.mkdir(parents=True)
    build_folder(tmp_path).rename(other / ".o-another")
    assert lines_of(kernel, [name])[name].startswith("mm/early.c:")


def test_where_nothing_is_left_nothing_is_told(kernel: Any, tmp_path: Path) -> None:
    name = name_in(build_folder(tmp_path), "early_fault", 0)
    shutil.rmtree(build_folder(tmp_path))
    assert lines_of(kernel, [name]) == {}
    shutil.rmtree(tmp_path / "sources")
    assert lines_of(kernel, [name]) == {}
