# SPDX-License-Identifier: GPL-2.0-only
"""A few records of stage 2's handover damaged for real; and without what looks for it."""

from __future__ import annotations

import pytest

from common.checks.controls import panicked, reason
from common.checks.model import Control
from common.suites.pytest_plugin import Damaged


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("fdt.magic.bit", "REFUSED: panic: KHO: what the previous kernel handed over"),
        ("luo.flbs.zero", "REFUSED: panic: The incoming tree failed to initialize properly"),
        ("memfd.size.plus", "REFUSED: panic: liveupdate: state of a file 'memfd-v3'"),
        ("pci-device.bdf.bit", "REFUSED: panic: liveupdate: FLB 'pci-live-v1'"),
        ("vfio.bdf.bit", "REFUSED: panic: liveupdate: state of a file 'vfio-pci-live-"),
        ("metadata.count.plus", "TAKEN OVER: it is only printed"),
    ],
)
def test_a_damage_is_refused_or_has_no_meaning(damaged: Damaged, point: str, said: str) -> None:
    assert damaged(2, point).startswith(said)


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
        (
            "liveupdate-Let-the-next-kernel-see-that",
            "luo.flbs.zero",
            "VIOLATION: FINISH succeeded, and the device writes",
        ),
        (
            "mm-memfd_luo-Check-what-is-handed-over",
            "memfd.size.plus",
            "VIOLATION: file stage.2: position, size, seals",
        ),
    ],
)
def test_without_the_patch_that_looks_for_it_it_is_a_violation(
    damaged: Damaged, patch: str, point: str, said: str
) -> None:
    assert damaged(2, point, without(patch)).startswith(said)
