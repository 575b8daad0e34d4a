# SPDX-License-Identifier: GPL-2.0-only
"""A few records of stage 1's handover damaged for real, on Linux as it is."""

from __future__ import annotations

import pytest

from common.suites.pytest_plugin import Damaged


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
def test_what_linux_makes_of_it(damaged: Damaged, point: str, said: str) -> None:
    assert damaged(1, point).startswith(said)
