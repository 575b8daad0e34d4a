# SPDX-License-Identifier: GPL-2.0-only
"""pytest plugin: the one hypervisor that the stages' tests share.

libvirt's embedded driver can be opened with one folder only in the life of a process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.hypervisor import Hypervisor


@pytest.fixture(scope="session")
def hypervisor() -> Iterator[Hypervisor]:
    """An open connection to the embedded driver."""
    with Hypervisor() as opened:
        yield opened
