# SPDX-License-Identifier: GPL-2.0-only
"""A stage's sweep on kernels with bugs that it has to find: its sweep_faults, behind its series."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from common.errors import HarnessError
from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice, series_of
from common.stage.loading import load_stage
from common.stage.series import kernel_needs, series_fragments
from common.suites.sweep.points import Sweep
from common.suites.sweep.run import run_sweep, sweep_choice


def faults_of(stage: Stage) -> tuple[Path, ...]:
    """Its patches with bugs, in order of their names."""
    return tuple(sorted((stage.folder / "sweep_faults").glob("*.patch")))


def words_of(found: Sweep, call: str) -> list[str]:
    """What is wrong with the points of that call, in words."""
    return [one.words for one in found.violations if one.point.startswith(f"{call}:")]


def sweep_faulty(number: int, folder: Path, hypervisor: Hypervisor) -> Sweep:
    """What the sweep of that stage finds; its raw files are left in `folder`, which is empty.

    Raises HarnessError where it does not come to its end.
    """
    stage = load_stage(number)
    series = folder / "series"
    series.mkdir()
    patches = (*kernel_needs(stage).patches, *faults_of(stage))
    # Not from 0: that number is a cover letter's.
    for place, patch in enumerate(patches, start=1):
        shutil.copy(patch, series / f"{place:04}-{patch.name}")
    for fragment in series_fragments(stage):
        shutil.copy(fragment, series)
    choice = replace(KernelChoice(), series=series_of(str(series)))
    stage, choice = sweep_choice(stage, choice)
    found, ended = run_sweep(stage, choice, hypervisor, probe(), folder)
    if ended.detail:
        raise HarnessError(f"{ended.detail} (at {found.unfinished}; {folder})")
    return found
