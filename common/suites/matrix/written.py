# SPDX-License-Identifier: GPL-2.0-only
"""Which formats a kernel writes: what is in the machine's RAM at its kexec.

For each kernel of a matrix and each stage one machine is stopped at the jump, and the records of
the handover are walked from outside, as `sweep --damage` does; none is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import HarnessError, StagesError
from common.host.accel import Accelerator
from common.machine.hypervisor import Hypervisor
from common.run.kernels import kernels_of
from common.suites.damage.lives import Bench
from common.suites.damage.run import in_time
from common.suites.matrix.cells import Cell
from common.suites.matrix.formats import Written, write_written

_ONE_IMAGE = "one image on both sides: at the jump nothing tells which of them runs"


def note_written(
    cells: Sequence[Cell], accelerator: Accelerator, hypervisor: Hypervisor, folder: Path
) -> None:
    """A note in `folder` on each outgoing kernel of these cells, for each stage.

    Where it cannot be seen the note says why.
    """
    chosen: dict[tuple[int, str], Cell] = {}
    for cell in cells:
        key = (cell.stage, cell.outgoing)
        if key not in chosen or chosen[key].choice.one_kernel:
            chosen[key] = cell
    for (stage, name), cell in chosen.items():
        print(f"matrix: what {name} writes in stage {stage}", file=sys.stderr, flush=True)
        try:
            seen = _formats(cell, accelerator, hypervisor, folder / f"written-{stage}-{name}")
            note = Written(stage=str(stage), kernel=name, formats=seen)
        except StagesError as error:
            note = Written(stage=str(stage), kernel=name, why=str(error))
        write_written(folder, note)


def _formats(
    cell: Cell, accelerator: Accelerator, hypervisor: Hypervisor, folder: Path
) -> tuple[str, ...]:
    """Raises HarnessError where nothing is handed over, or it cannot be found."""
    if cell.choice.one_kernel:
        raise HarnessError(_ONE_IMAGE)
    stage = cell.load()
    bench = Bench(stage, kernels_of(stage, cell.choice), accelerator, hypervisor)
    folder.mkdir(parents=True, exist_ok=True)
    with in_time(bench, folder) as machine:
        return machine.handover.formats
