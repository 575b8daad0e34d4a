# SPDX-License-Identifier: GPL-2.0-only
"""The stages of this checkout: found by their folders, loaded by number and workload."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UsageError
from common.paths import CHECKOUT
from common.record.trial_files import TrialFile
from common.stage.declaration import WORKLOADS, Stage, Workload


def stage_folders() -> dict[int, Path]:
    """The stages of this checkout: number -> folder."""
    found = sorted((CHECKOUT / "stages").glob("[0-9][0-9]_*/kernel.config"))
    folders = [path.parent for path in found]
    return {
        int(folder.name[:2]): folder
        for folder in folders
        if (folder / folder.name[3:] / "stage.py").exists()
    }


def stage_workloads(number: int) -> tuple[Workload, ...]:
    """The workloads that the stage can be run with; the first is its own."""
    folder = stage_folders()[number]
    others = [w for w in WORKLOADS[1:] if (folder / f"{folder.name[3:]}_{w}" / "stage.py").exists()]
    return (WORKLOADS[0], *others)


def all_stages() -> tuple[Stage, ...]:
    """Every declaration of this checkout: the stages in order, each with all its workloads."""
    return tuple(load_stage(n, w) for n in stage_folders() for w in stage_workloads(n))


def trial_files() -> tuple[TrialFile, ...]:
    """The files that a trial of some stage leaves, beside those that every trial does."""
    return tuple(file for stage in all_stages() for file in stage.files)


def load_stage(number: int, workload: Workload = "vmm") -> Stage:
    """The stage's declaration, from stages/NN_name/name/stage.py, or name_WORKLOAD/ beside it.

    Raises UsageError for a stage, or a workload of it, that there is not.
    """
    folders = stage_folders()
    if number not in folders:
        have = ", ".join(str(n) for n in folders)
        raise UsageError(f"there is no stage {number}; this checkout has: {have}")
    stem = folders[number].name[3:] + ("" if workload == "vmm" else f"_{workload}")
    if not (folders[number] / stem / "stage.py").exists():
        raise UsageError(f"stage {number} has no workload {workload!r}")
    if (folder := str(folders[number])) not in sys.path:
        sys.path.append(folder)  # 01_… is no package name; what stands in it is
    stage: Stage = importlib.import_module(f"{stem}.stage").STAGE
    return stage


def unbroken(stage: Stage, *, earlier: Sequence[Stage] = ()) -> list[str]:
    """The stage's checks that no control breaks: neither its own, nor one of an earlier stage.

    An earlier stage's counts for a check that asks the very same function, not for one of its name.
    """
    broken = {name for control in stage.controls for name in control.breaks}
    shown = {
        check.ask
        for one in earlier
        for check in one.checks
        if any(check.name in control.breaks for control in one.controls)
    }
    return [c.name for c in stage.checks if c.name not in broken and c.ask not in shown]
