# SPDX-License-Identifier: GPL-2.0-only
"""Runs edited at random, resealed: one sentence and exit status 2, or a verdict no better."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.edits import tried
from tests.recorded_trial import IOMMUFD, KVM_MEMFD, RECORDED, VFIO_NOIOMMU
from tests.stored import store_run

QEMU = RECORDED / "kvm_memfd_qemu"
NIC = RECORDED / "iommufd_qemu"
RUNS: dict[str, Callable[[Path], Path]] = {
    "01_kvm_memfd": lambda folder: store_run(
        folder,
        *((KVM_MEMFD / name, name) for name in ("main", "control-panic")),
    ),
    "01_kvm_memfd_qemu": lambda folder: store_run(folder, (QEMU / "main", "main")),
    "02_vfio_noiommu": lambda folder: store_run(folder, (VFIO_NOIOMMU / "main", "main"), stage=2),
    "03_iommufd_qemu": lambda folder: store_run(folder, (NIC / "main", "main"), stage=3),
    "03_iommufd": lambda folder: store_run(folder, (IOMMUFD / "main", "main"), stage=3),
}
EDITS = 40
"""Some 2 s each; `python -m tests.edits RUN 500` makes more of them, of any run."""


@pytest.mark.parametrize("stage", RUNS)
def test_an_edited_run_is_refused_or_judged_no_better(stage: str, runs: Path) -> None:
    run = RUNS[stage](runs / stage)
    counts, amiss, _ = tried(run, EDITS, seed=1)
    assert not amiss, "\n".join(f"{one.edit}: {one.amiss}" for one in amiss)
    assert counts["refused"] > EDITS // 4
