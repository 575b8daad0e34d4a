# SPDX-License-Identifier: GPL-2.0-only
"""A few records of stage 1's handover damaged for real, on Linux as it is."""

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
STAGE = configured(load_stage(1), choice=CHOICE)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("fdt.magic.bit", "REFUSED: KHO: setup: handover FDT"),
        ("files.count.one", "REFUSED: luo: File count mismatch"),
        ("session.all.swap", "TAKEN OVER: their order has no meaning"),
        ("memfd.size.plus", "VIOLATION: file first.2: position, size, seals"),
        ("memfd.folios.huge", "VIOLATION: BUG: unable to handle page fault"),
    ],
)
def test_what_linux_makes_of_it(
    hypervisor: Hypervisor, tmp_path: Path, point: str, said: str
) -> None:
    bench = Bench(STAGE, kernels_of(STAGE, CHOICE), probe(), hypervisor)
    verdict = try_point(bench, point, tmp_path)
    assert f"{verdict.status}: {verdict.why}".startswith(said)
