# SPDX-License-Identifier: GPL-2.0-only
"""Runs a sweep of damaged records, or the rest of one that was interrupted."""

from __future__ import annotations

import datetime
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import HarnessError, UsageError
from common.paths import runs_root
from common.stage.declaration import Stage
from common.suites.damage.lives import PROGRAM, Bench, Standing, TooLate, guest_byte, standing
from common.suites.damage.points import GUEST, NONE, Point, point_named, points, random_points
from common.suites.damage.record import (
    SWEEP,
    Plan,
    is_recorded,
    point_folder,
    read_plan,
    read_point,
)
from common.suites.damage.verdict import UNNOTICED, Verdict, as_it_should, judge

_CONTROLS = (NONE, GUEST)
# A busy host needs more than the tenths of a second that a kernel needs to begin.
_MACHINES = 5


@dataclass(frozen=True)
class Asked:
    """What is to be tried: all, with `random` bytes more, or the one point."""

    seed: int
    random: int = 0
    point: str | None = None


def checked_stage(stage: Stage) -> Stage:
    """The stage, which has a program for it. Raises UsageError."""
    if not (stage.folder / PROGRAM).exists():
        raise UsageError(f"stage {stage.number} has no sweep of damaged records")
    return stage


def stored(folder: Path, stage: int) -> Asked:
    """What a stored sweep was to try. Raises UsageError for what is none of that stage."""
    try:
        plan = read_plan(folder)
    except (OSError, ValueError) as error:
        raise UsageError(f"--resume {folder}: {error}") from error
    if plan.stage != stage:
        raise UsageError(f"--resume {folder} is of stage {plan.stage}")
    return Asked(plan.seed, plan.random, plan.point)


def new_folder(stage: Stage) -> Path:
    """A folder that stays where a sweep is interrupted."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = runs_root() / f"{stamp}-damage-{stage.number}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder


def run_points(
    bench: Bench, asked: Asked, folder: Path, *, on_point: Callable[[Verdict], None]
) -> None:
    """Try every point that `folder` has no record of yet; tells the verdict on each.

    Raises HarnessError where an undamaged life is not taken over, or a byte that the host changed
    in a file is not seen.
    """
    with in_time(bench, folder) as machine:
        planned = _planned(machine, asked)
        # Before any life: each leaves other bytes where it read these.
        controls = [_control(machine, name) for name in _CONTROLS]
        _write_plan(bench, asked, planned, folder)
        for control in controls:
            if not is_recorded(folder, control.name):
                machine.live(control, _fresh(folder, control.name))
        check_controls(folder)
        reference = read_point(folder, NONE)
        for point in planned:
            if not is_recorded(folder, point.name):
                machine.live(point, _fresh(folder, point.name))
                on_point(judge(read_point(folder, point.name), reference))


@contextmanager
def in_time(bench: Bench, folder: Path) -> Iterator[Standing]:
    """A machine that stands at the jump, the first of `_MACHINES` that was stopped in time.

    Nothing has been tried on one that was not; its folder, machine-N in `folder`, stays. Raises
    HarnessError where none comes there, or where what is handed over cannot be found.
    """
    for left in reversed(range(_MACHINES)):
        number = sum(1 for _ in folder.glob("machine-*")) + 1
        with ExitStack() as stack:
            try:
                machine = stack.enter_context(standing(bench, folder / f"machine-{number}"))
            except TooLate:
                if not left:
                    raise
                continue
            yield machine
            return


def try_point(bench: Bench, name: str, folder: Path) -> Verdict:
    """Try that point alone, in a folder that is empty; the verdict is from its raw files."""
    run_points(bench, Asked(seed=1, point=name), folder, on_point=lambda _verdict: None)
    ((verdict,), _left) = judged(folder)
    return verdict


def check_controls(folder: Path) -> None:
    """Raises HarnessError where the sweep cannot see what it has to."""
    reference = read_point(folder, NONE)
    if fault := as_it_should(reference):
        raise HarnessError(f"nothing was damaged, and yet: {fault} ({point_folder(folder, NONE)})")
    if UNNOTICED not in judge(read_point(folder, GUEST), reference).why:
        raise HarnessError("a byte of a file was changed, and the host did not notice")


def judged(folder: Path) -> tuple[list[Verdict], list[str]]:
    """The verdicts of a stored sweep, from its raw files, and the points that were not tried.

    Raises HarnessError for what is damaged.
    """
    try:
        plan = read_plan(folder)
        tried = [name for name in plan.planned if is_recorded(folder, name)]
        if not tried:
            return [], list(plan.planned)
        check_controls(folder)
        reference = read_point(folder, NONE)
        verdicts = [judge(read_point(folder, name), reference) for name in tried]
    except (OSError, ValueError) as error:
        raise HarnessError(f"{folder}: {error}") from error
    return verdicts, [name for name in plan.planned if name not in tried]


def _planned(machine: Standing, asked: Asked) -> list[Point]:
    records, read = machine.handover.records, machine.ram.read
    if asked.point in _CONTROLS:
        return [_control(machine, asked.point)]
    if asked.point:
        return [point_named(asked.point, records, read, asked.seed)]
    found = points(records, read, asked.seed)
    return found + random_points(records, read, asked.seed, asked.random)


def _control(machine: Standing, name: str) -> Point:
    if name == GUEST:
        return guest_byte(machine.handover, machine.ram)
    return Point(NONE, ())


def _write_plan(bench: Bench, asked: Asked, planned: Sequence[Point], folder: Path) -> None:
    plan = Plan(
        stage=bench.stage.number,
        seed=asked.seed,
        random=asked.random,
        point=asked.point,
        kernels={
            "outgoing": bench.kernels.outgoing.build_id,
            "incoming": bench.kernels.incoming.build_id,
        },
        planned=tuple(point.name for point in planned),
        command=tuple(sys.argv[1:]),
    )
    path = folder / SWEEP
    if path.exists():
        before = read_plan(folder)
        if before.planned != plan.planned or before.kernels != plan.kernels:
            raise UsageError(f"{folder} has other points, or is of other kernels")
        return
    path.write_text(plan.model_dump_json(indent=1) + "\n")


def _fresh(folder: Path, name: str) -> Path:
    """The point's folder, without what an interrupted life left there."""
    place = point_folder(folder, name)
    if place.exists():
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    return place
