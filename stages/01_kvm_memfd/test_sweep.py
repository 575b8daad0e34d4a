# SPDX-License-Identifier: GPL-2.0-only
"""The sweep for real, on kernels into which faults were put: it has to find each of them.

Run by `./kexec-stages test stages/01_kvm_memfd/test_sweep.py -m debug_kernels`.
"""

from __future__ import annotations

import pytest

from common.machine.hypervisor import Hypervisor
from common.stage.loading import load_stage
from common.suites.sweep.faults import faults_of, sweep_faulty, words_of
from common.suites.sweep.points import Sweep

pytestmark = pytest.mark.debug_kernels
FOUND = {
    "folios-stay-pinned.patch": ("preserve_fd", "+8 pins"),
    "file-stays-frozen.patch": ("preserve_fd", "resize: EPERM"),
    "folios-stay-registered.patch": (
        "preserve_fd",
        "pages registered with KHO left by the call that failed",
    ),
    "others-given-up.patch": ("preserve_second", "other: EBADE"),
    "session-freed-twice.patch": ("create_session", "KASAN: "),
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, hypervisor: Hypervisor) -> Sweep:
    return sweep_faulty(1, tmp_path_factory.mktemp("sweep"), hypervisor)


@pytest.mark.parametrize("patch", [path.name for path in faults_of(load_stage(1))])
def test_each_fault_is_found(swept: Sweep, patch: str) -> None:
    call, words = FOUND[patch]
    said = words_of(swept, call)
    assert any(words in each for each in said), said
