# SPDX-License-Identifier: GPL-2.0-only
"""The cells of a matrix as pytest takes them, so that pytest-xdist distributes them.

Not a test of this program: `matrix` gives pytest this file, and its own words in the environment.
Each worker is a process with a hypervisor of its own.
"""

from __future__ import annotations

import json
import os

import pytest

from common.cli.matrix import cells
from common.cli.options import run_options
from common.cli.parser import build_parser
from common.machine.hypervisor import Hypervisor
from common.suites.matrix.run import run_cell

WORDS = "KEXEC_STAGES_MATRIX_WORDS"
CELLS = "KEXEC_STAGES_MATRIX_CELLS"


@pytest.mark.parametrize("name", json.loads(os.environ.get(CELLS, "[]")))
def test_cell(name: str, hypervisor: Hypervisor) -> None:
    """The cell runs, and leaves what it has to say; what that is the table tells."""
    arguments = build_parser().parse_args(json.loads(os.environ[WORDS]))
    cell = next(cell for cell in cells(arguments) if cell.name == name)
    status = run_cell(cell, run_options(arguments), hypervisor, arguments.results)
    assert status in ("PASS", "XPASS", "XFAIL"), status
