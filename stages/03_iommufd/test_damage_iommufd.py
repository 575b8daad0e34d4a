# SPDX-License-Identifier: GPL-2.0-only
"""A few records of stage 3's handover damaged for real."""

from __future__ import annotations

import pytest

from common.suites.pytest_plugin import Damaged


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("fdt.magic.bit", "REFUSED: panic: KHO: what the previous kernel handed over"),
        ("iommu-unit.root.bit", "REFUSED: panic: liveupdate: FLB 'iommu-live-v1'"),
        ("hwpt.top.bit", "REFUSED: panic: liveupdate: state of a file 'iommufd-live-v1'"),
        ("metadata.count.plus", "TAKEN OVER: it is only printed"),
    ],
)
def test_a_damage_is_refused_or_has_no_meaning(damaged: Damaged, point: str, said: str) -> None:
    assert damaged(3, point).startswith(said)
