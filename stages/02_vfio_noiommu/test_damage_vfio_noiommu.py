# SPDX-License-Identifier: GPL-2.0-only
"""A few records of stage 2's handover damaged for real; and without what looks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.checks.controls import panicked, reason
from common.checks.model import Control
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.run.kernels import Kernels, kernels_of
from common.stage.configured import configured
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import load_stage
from common.suites.damage.lives import Bench
from common.suites.damage.run import try_point

CHOICE = KernelChoice()
STAGE = configured(load_stage(2), choice=CHOICE)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("fdt.magic.bit", "REFUSED: panic: KHO: what the previous kernel handed over"),
        ("luo.flbs.zero", "REFUSED: panic: The incoming tree failed to initialize properly"),
        ("memfd.size.plus", "REFUSED: panic: liveupdate: state of a file 'memfd-v3'"),
        ("pci-device.bdf.bit", "REFUSED: panic: liveupdate: FLB 'pci-live-v1'"),
        ("vfio.bdf.bit", "REFUSED: panic: liveupdate: state of a file 'vfio-pci-live-"),
        ("metadata.count.plus", "TAKEN OVER: it is printed"),
    ],
)
def test_a_damage_is_refused_or_has_no_meaning(
    hypervisor: Hypervisor, tmp_path: Path, point: str, said: str
) -> None:
    bench = Bench(STAGE, kernels_of(STAGE, CHOICE), probe(), hypervisor)
    verdict = try_point(bench, point, tmp_path)
    assert f"{verdict.status}: {verdict.why}".startswith(said)


def without(patch: str) -> Control:
    """Kernels that lack one patch."""
    return Control(
        name=f"without-{patch}",
        what="what arrives damaged is taken over",
        breaks=frozenset(),
        reason=reason(panicked()),
        without_patch=patch,
    )


@pytest.mark.parametrize(
    ("patch", "point", "said"),
    [
        ("0036-", "luo.flbs.zero", "VIOLATION: FINISH succeeded, and the device writes"),
        ("0037-", "memfd.size.plus", "VIOLATION: file stage.2: position, size, seals"),
    ],
)
def test_without_the_patch_that_looks_for_it_it_is_a_violation(
    hypervisor: Hypervisor, tmp_path: Path, patch: str, point: str, said: str
) -> None:
    control = without(patch)
    pair = kernels_of(STAGE, CHOICE, controls=[control]).controls[control.name]
    kernels = Kernels(outgoing=pair[0], incoming=pair[1])
    verdict = try_point(Bench(STAGE, kernels, probe(), hypervisor), point, tmp_path)
    assert f"{verdict.status}: {verdict.why}".startswith(said)
