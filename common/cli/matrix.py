# SPDX-License-Identifier: GPL-2.0-only
"""The matrix verb: kernels x stages x controls, run here or by a CI's own engine."""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common.arch.known import ARCHITECTURES, DEFAULT
from common.cli.options import run_options
from common.errors import Exit, UsageError
from common.paths import runs_root
from common.stage.kernel_choice import KernelChoice, Origin, default_origin, origin_of, series_of
from common.stage.loading import load_stage, stage_folders
from common.stage.on_architecture import not_there
from common.suites.matrix.cells import Cell, cells_of, exit_of, names_in, plan_text, result, table
from common.suites.matrix.formats import Asked, formats, read_asked, read_written, write_asked
from common.suites.matrix.formats import exit_of as exit_of_formats
from common.suites.matrix.formats_table import RENDERED

_OF_A_JOB = ("--results", "--cell", "--jobs")


def matrix(arguments: argparse.Namespace) -> int:
    """Run, plan or collect the cells; the table on stdout. The worst cell's exit status."""
    if arguments.collect:
        return _collected(arguments)
    if arguments.plan:
        sys.stdout.write(plan_text(cells(arguments), arguments.plan))
        return Exit.PASS
    wanted = _chosen_cells(arguments)
    if arguments.formats:
        _check_formats(arguments)
    folder = _results_folder(arguments)
    if arguments.formats:
        write_asked(folder, _asked())
    from common.suites.matrix.run import run_cells  # libvirt: not needed to plan or to collect

    run_cells(
        wanted,
        run_options(arguments),
        folder,
        connect=arguments.connect,
        jobs=arguments.jobs,
        formats=bool(arguments.formats),
    )
    return _told([cell.name for cell in wanted], [folder], arguments)


def cells(arguments: argparse.Namespace) -> tuple[Cell, ...]:
    """The cells that the options ask for. Raises UsageError for kernels or stages there are not."""
    arch = ARCHITECTURES[arguments.arch]
    base = KernelChoice(
        series=series_of(arguments.series), config=tuple(arguments.config), arch=arch
    )
    there = [n for n in stage_folders() if not not_there(load_stage(n), arch)]
    stages = arguments.stage or there
    return cells_of(
        _kernels(arguments.kernel),
        stages,
        base,
        controls=arguments.controls,
        chain=arguments.chain,
    )


def _kernels(texts: Sequence[str]) -> dict[str, Origin]:
    """NAME=WHERE or WHERE alone, whose last part is the name then."""
    found: dict[str, Origin] = {}
    for text in texts or [default_origin().name]:
        name, equals, where = text.partition("=")
        origin = origin_of(where if equals else text)
        if not equals:
            name = origin.path.resolve().name.removeprefix("linux-source-").replace("@", "-")
        if not name or "-to-" in name or not all(c.isalnum() or c in "._+-" for c in name):
            raise UsageError(f"--kernel {text}: {name!r} cannot name a job; give NAME=WHERE")
        if name in found:
            raise UsageError(f"--kernel {text}: there is a kernel {name} already; give NAME=WHERE")
        found[name] = origin
    return found


def _chosen_cells(arguments: argparse.Namespace) -> tuple[Cell, ...]:
    all_cells = cells(arguments)
    if not arguments.cell:
        return all_cells
    for cell in all_cells:
        if cell.name == arguments.cell:
            return (cell,)
    raise UsageError(f"this matrix has no cell {arguments.cell}; --plan lists those it has")


def _results_folder(arguments: argparse.Namespace) -> Path:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder: Path = arguments.results or runs_root() / f"matrix-{stamp}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _collected(arguments: argparse.Namespace) -> int:
    """What jobs brought back: of the cells asked for, else of all that are there."""
    folders = [Path(name) for name in arguments.collect]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise UsageError(f"there is no folder {missing[0]} to collect from")
    names = names_in(folders)
    if arguments.kernel or arguments.stage:
        names = [cell.name for cell in cells(arguments)]
    return _told(names, folders, arguments)


def _check_formats(arguments: argparse.Namespace) -> None:
    """Raises UsageError for what --formats has no use for."""
    if arguments.controls or arguments.chain > 1:
        raise UsageError("--formats looks at one update without controls: no --controls, --chain")
    if arguments.arch != DEFAULT.name:
        raise UsageError(f"--formats works only on {DEFAULT.title}")


def _asked() -> Asked:
    """The command as it was given, but for what a job of it alone has."""
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in _OF_A_JOB:
            next(words, None)
        elif word.partition("=")[0] not in _OF_A_JOB:
            kept.append(word)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Asked(command=shlex.join(["./kexec-stages", *kept]), day=day)


def _told(names: Sequence[str], folders: Sequence[Path], arguments: argparse.Namespace) -> int:
    results = [result(folders, name) for name in names]
    if not arguments.collect:
        print(f"\nResults: {folders[0]}", file=sys.stderr)
    if arguments.formats:
        found = formats(results, read_written(folders), read_asked(folders))
        sys.stdout.write(RENDERED[arguments.formats](found))
        return exit_of_formats(found)
    sys.stdout.write(table(results))
    return exit_of(results, refusal_ok=arguments.refusal_ok)
