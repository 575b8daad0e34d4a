# SPDX-License-Identifier: GPL-2.0-only
"""A few records of stage 3's handover damaged for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.run.kernels import kernels_of
from common.stage.configured import configured
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.suites.damage.lives import Bench
from common.suites.damage.run import try_point

CHOICE = KernelChoice()
STAGE = configured(load_stage(3), choice=CHOICE)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("fdt.magic.bit", "REFUSED: panic: KHO: what the previous kernel handed over"),
        ("iommu-unit.root.bit", "REFUSED: panic: liveupdate: FLB 'iommu-live-v1'"),
        ("hwpt.top.bit", "REFUSED: panic: liveupdate: state of a file 'iommufd-live-v1'"),
        ("metadata.count.plus", "TAKEN OVER: it is printed"),
    ],
)
def test_a_damage_is_refused_or_has_no_meaning(
    hypervisor: Hypervisor, tmp_path: Path, point: str, said: str
) -> None:
    bench = Bench(STAGE, kernels_of(STAGE, CHOICE), probe(), hypervisor)
    verdict = try_point(bench, point, tmp_path)
    assert f"{verdict.status}: {verdict.why}".startswith(said)
