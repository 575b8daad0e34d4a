# SPDX-License-Identifier: GPL-2.0-only
"""The sweep for real, on kernels into which faults were put: it has to find each of them.

Run by `./kexec-stages test stages/02_vfio_noiommu/test_sweep_vfio_noiommu.py -m debug_kernels`.
"""

from __future__ import annotations

import pytest

from common.machine.hypervisor import Hypervisor
from common.stage.loading import load_stage
from common.suites.sweep.faults import faults_of, sweep_faulty, words_of
from common.suites.sweep.points import Sweep

pytestmark = pytest.mark.debug_kernels
FOUND = {
    "outgoing-after-refusal.patch": ("preserve_device", "when called again"),
    "stopped-by-failed-bind.patch": ("bind_device", "config: EBADE"),
    "retrieved-too-early.patch": ("retrieve_device", "where nothing was made to fail"),
    "attached-too-early.patch": ("attach_device", "EINVAL, where memory was short"),
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Sweep:
    return sweep_faulty(2, tmp_path_factory.mktemp("sweep"), hypervisor)


@pytest.mark.parametrize("patch", [path.name for path in faults_of(load_stage(2))])
def test_each_fault_is_found(swept: Sweep, patch: str) -> None:
    call, words = FOUND[patch]
    said = words_of(swept, call)
    assert any(words in each for each in said), said
