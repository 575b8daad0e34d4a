# SPDX-License-Identifier: GPL-2.0-only
"""The sweep for real, on kernels into which faults were put: it has to find each of them.

Run by `./kexec-stages test stages/01_kvm_memfd/test_sweep.py -m debug_kernels`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.errors import Exit
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.paths import CHECKOUT
from common.stage.kernel_choice import KernelChoice, series_of
from common.stage.loading import load_stage
from common.suites.sweep.points import Sweep
from common.suites.sweep.run import run_sweep, sweep_choice

pytestmark = pytest.mark.debug_kernels
FAULTS = CHECKOUT / "stages" / "01_kvm_memfd" / "sweep_faults"


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Sweep:
    choice = replace(KernelChoice(), series=series_of(str(FAULTS)))
    stage, choice = sweep_choice(load_stage(1), choice)
    folder = tmp_path_factory.mktemp("sweep")
    found, ended = run_sweep(stage, choice, hypervisor, probe(), folder)
    assert ended.status is Exit.PASS, ended.detail
    return found


def words_of(swept: Sweep, call: str) -> list[str]:
    return [one.words for one in swept.violations if one.point.startswith(f"{call}:")]


@pytest.mark.parametrize(
    ("patch", "call", "words"),
    [
        ("folios-stay-pinned.patch", "preserve_fd", "+8 pins"),
        ("file-stays-frozen.patch", "preserve_fd", "resize: EPERM"),
        (
            "folios-stay-registered.patch",
            "preserve_fd",
            "pages registered with KHO left by the call that failed",
        ),
        ("others-given-up.patch", "preserve_second", "other: EBADE"),
        ("session-freed-twice.patch", "create_session", "KASAN: "),
    ],
)
def test_each_fault_is_found(swept: Sweep, patch: str, call: str, words: str) -> None:
    assert (FAULTS / patch).exists()
    assert any(words in said for said in words_of(swept, call))
