# SPDX-License-Identifier: GPL-2.0-only
"""A patch to a kernel rots when the series is changed under it, and nobody hears of it before the
day that its control or mutant is run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.run.kernels import default_tree
from common.stage.loading import load_stage
from common.stage.series import patches_of
from common.suites.mutants import mutants
from kernel.source.worktree import apply_patch

_CONTROLS = [
    (number, control.name)
    for number in (1, 2, 3)
    for control in load_stage(number).controls
    if control.own_kernels and not control.stock
]


@pytest.fixture(scope="module")
def tree() -> Path:
    """The kernel's source as it is packaged."""
    return default_tree()


def patched(folder: Path, tree: Path, patches: Sequence[Path]) -> Path:
    """A folder with those files of the kernel that the patches name, and all of them applied."""
    folder.mkdir(exist_ok=True)
    for patch in patches:
        for name in re.findall(r"^(?:---|\+\+\+) [ab]/(\S+)", patch.read_text(), re.MULTILINE):
            original, copy = tree / name, folder / name
            if original.exists() and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(original, copy)
        apply_patch(folder, patch)
    return folder


@pytest.mark.parametrize(("number", "name"), _CONTROLS)
def test_the_kernel_of_a_control_can_be_had(
    number: int, name: str, tree: Path, tmp_path: Path
) -> None:
    stage = load_stage(number)
    assert any(patched(tmp_path, tree, patches_of(stage, stage.control(name))).iterdir())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_mutants_part_of_the_kernel_applies(number: int, tree: Path, tmp_path: Path) -> None:
    series = patched(tmp_path / "series", tree, patches_of(load_stage(number)))
    for one in (m for m in mutants() if m.stage == number and m.kernel_diff):
        patch, folder = tmp_path / f"{one.name}.patch", tmp_path / one.name
        patch.write_text(one.kernel_diff)
        shutil.copytree(series, folder)
        assert patched(folder, tree, [patch])
