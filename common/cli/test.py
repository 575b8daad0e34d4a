# SPDX-License-Identifier: GPL-2.0-only
"""The test command: ruff, mypy, pytest, in that order; any failure counts. Or the mutants."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from common.errors import Exit, StagesError
from common.paths import CHECKOUT, cache_root
from common.run.workers import machines_at_once
from common.stage.loading import stage_folders
from common.suites.mutants import Finding, mutants, try_mutant
from common.text import printable

_MIB_EACH = 4096
"""For a test: a machine, and what is told of it."""


def test(arguments: argparse.Namespace) -> int:
    """Lint, type check and test this checkout; the tests' own summary comes last.

    With --mutants, the mutants instead.
    """
    if arguments.mutants is not None:
        return _mutants(arguments.mutants, arguments.stage)
    files = ["common", "kernel", "tests", "bench"]
    files += [
        str(path.relative_to(CHECKOUT))
        for folder in stage_folders().values()
        for path in sorted(folder.glob("**/*.py"))
    ]
    python = [sys.executable, "-m"]
    steps = [
        [*python, "ruff", "check", *files],
        [*python, "ruff", "format", "--check", *files],
        [*python, "mypy", *files],
        [*python, "pytest", *_at_once(), *arguments.further],
    ]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {
        "MYPY_CACHE_DIR": _cache("mypy"),
        "RUFF_CACHE_DIR": _cache("ruff"),
    }
    steps[-1] += ["-o", f"cache_dir={_cache('pytest')}"]
    # The tests send SIGINT; a shell that starts us in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = Exit.PASS
    for step in steps:
        print(f"$ {' '.join(step[2:])}", file=sys.stderr, flush=True)
        if subprocess.run(step, cwd=CHECKOUT, env=environment, check=False).returncode:
            status = Exit.FAIL
    return status


def _at_once() -> list[str]:
    """pytest's words for as many tests at once as this host has CPUs and memory for machines.

    Words of the user's come after them, and count: `-n0` is one process, as a debugger needs it.
    """
    jobs = machines_at_once(_MIB_EACH)
    return ["-n", str(jobs), "--dist", "worksteal"] if jobs > 1 else []


def _mutants(names: Sequence[str], stage: int) -> int:
    """Every mutant must be noticed: 1 when one is not, 3 when one could not even be tried."""
    chosen = mutants(names, stage=stage)
    findings: list[Finding] = []
    errors = 0
    with tempfile.TemporaryDirectory(prefix="kexec-stages-mutants-") as folder:
        for number, mutant in enumerate(chosen, start=1):
            print(f"{mutant.name} ({number} of {len(chosen)}) ...", file=sys.stderr, flush=True)
            workspace = Path(folder) / str(number)
            found = try_mutant(mutant, workspace)
            shutil.rmtree(workspace)
            if isinstance(found, StagesError):
                errors += 1
                print(
                    f"ERROR       {mutant.name}: {found}", *found.details, sep="\n    ", flush=True
                )
                continue
            findings.append(found)
            word = "noticed     " if found.caught else "NOT NOTICED "
            print(printable(f"{word}{mutant.name} by {found.by}: {found.seen}"), flush=True)
    print(f"\n{_table(findings)}\n")
    caught = sum(finding.caught for finding in findings)
    print(f"{caught} of {len(chosen)} mutants noticed, each by its designated check")
    return Exit.HARNESS if errors else Exit.PASS if caught == len(chosen) else Exit.FAIL


def _table(findings: Sequence[Finding]) -> str:
    rows = [
        (
            one.mutant.name,
            one.mutant.stage,
            one.by if one.caught else f"NOT {one.by}",
            " ".join(n if n in one.mutant.may_break else f"{n}(!)" for n in one.beside),
        )
        for one in findings
    ]
    headers = ("mutant", "stage", "noticed by", "failed beside it")
    return tabulate(rows, headers=headers, maxcolwidths=[None, None, None, 60])


def _cache(tool: str) -> str:
    return str(cache_root() / "tools" / tool)
