# SPDX-License-Identifier: GPL-2.0-only
"""The sweep for real, on our series with faults put into it: it has to find each of them.

Run by `./kexec-stages test stages/02_vfio_noiommu/test_sweep_vfio_noiommu.py -m debug_kernels`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import Exit
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.stage.kernel_choice import KernelChoice, series_of
from common.stage.loading import load_stage
from common.stage.series import kernel_needs
from common.suites.sweep.points import Sweep
from common.suites.sweep.run import run_sweep, sweep_choice

pytestmark = pytest.mark.debug_kernels
FAULTS = Path(__file__).parent / "sweep_faults"


def with_faults(folder: Path) -> Path:
    """Our series, and the faults behind it."""
    stage = load_stage(2)
    for number, patch in enumerate((*kernel_needs(stage).patches, *sorted(FAULTS.iterdir()))):
        shutil.copy(patch, folder / f"{number:04}-{patch.name}")
    shutil.copy(stage.folder / "series.config", folder)
    return folder


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Sweep:
    series = series_of(str(with_faults(tmp_path_factory.mktemp("series"))))
    stage, choice = sweep_choice(load_stage(2), replace(KernelChoice(), series=series))
    folder = tmp_path_factory.mktemp("sweep")
    found, ended = run_sweep(stage, choice, hypervisor, probe(), folder)
    assert ended.status is Exit.PASS, ended.detail
    return found


@pytest.mark.parametrize(
    ("patch", "call", "words"),
    [
        ("outgoing-after-refusal.patch", "preserve_device", "when called again"),
        ("stopped-by-failed-bind.patch", "bind_device", "config: EBADE"),
        ("retrieved-too-early.patch", "retrieve_device", "where nothing was made to fail"),
        ("attached-too-early.patch", "attach_device", "where nothing was made to fail"),
    ],
)
def test_each_fault_is_found(swept: Sweep, patch: str, call: str, words: str) -> None:
    assert (FAULTS / patch).exists()
    said = [one.words for one in swept.violations if one.point.startswith(f"{call}:")]
    assert any(words in each for each in said), said
