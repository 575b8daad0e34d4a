# SPDX-License-Identifier: GPL-2.0-only
"""Each lie of tests/sabotage that changes a workload still builds; `test --sabotage` runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from common.kernel_choice import KernelChoice
from common.kernels import kernel_pair
from common.paths import CHECKOUT
from common.sabotage import Lie, lies, plant
from common.stage import load_stage

IN_C = [
    lie for lie in lies() if "workload/" in lie.checkout_diff or "common/vm/" in lie.checkout_diff
]


@pytest.mark.parametrize("lie", IN_C, ids=lambda lie: lie.name)
def test_a_lie_builds(lie: Lie, tmp_path: Path) -> None:
    stage = load_stage(lie.stage)
    outgoing, _ = kernel_pair(stage, KernelChoice())
    plant(lie, tmp_path / "checkout")
    sources = tmp_path / "checkout" / stage.sources.relative_to(CHECKOUT)
    command = ["make", "-s", f"O={tmp_path / 'out'}", f"UAPI={outgoing.headers}"]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
