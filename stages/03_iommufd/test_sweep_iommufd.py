# SPDX-License-Identifier: GPL-2.0-only
"""The sweep for real, on kernels into which faults were put: it has to find each of them.

Run by `./kexec-stages test stages/03_iommufd/test_sweep_iommufd.py -m debug_kernels`.
"""

from __future__ import annotations

import pytest

from common.machine.hypervisor import Hypervisor
from common.stage.loading import load_stage
from common.suites.sweep.faults import faults_of, sweep_faulty, words_of
from common.suites.sweep.points import Sweep

pytestmark = pytest.mark.debug_kernels
FOUND = {
    "preserved-too-early.patch": ("preserve_iommufd", "when called again"),
    "tables-stay.patch": ("preserve_device", "left by the call that failed"),
    "restored-unanswered.patch": ("restore_hwpt", "where nothing was made to fail"),
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Sweep:
    return sweep_faulty(3, tmp_path_factory.mktemp("sweep"), hypervisor)


@pytest.mark.parametrize("patch", [path.name for path in faults_of(load_stage(3))])
def test_each_fault_is_found(swept: Sweep, patch: str) -> None:
    call, words = FOUND[patch]
    said = words_of(swept, call)
    assert any(words in each for each in said), said
