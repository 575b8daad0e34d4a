# SPDX-License-Identifier: GPL-2.0-only
"""Each mutant of tests/mutants that changes a workload still builds; `test --mutants` runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from common.paths import CHECKOUT
from common.run.kernels import kernels_of
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.suites.mutants import Mutant, apply_mutant, mutants

IN_C = [
    mutant
    for mutant in mutants()
    if "workload/" in mutant.checkout_diff or "common/workload/vm/" in mutant.checkout_diff
]


@pytest.mark.parametrize("mutant", IN_C, ids=lambda mutant: mutant.name)
def test_a_mutant_builds(mutant: Mutant, tmp_path: Path) -> None:
    stage = load_stage(mutant.stage)
    outgoing = kernels_of(stage, KernelChoice()).outgoing
    apply_mutant(mutant, tmp_path / "checkout")
    sources = tmp_path / "checkout" / stage.sources.relative_to(CHECKOUT)
    command = ["make", "-s", f"O={tmp_path / 'out'}", f"UAPI={outgoing.headers}"]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
