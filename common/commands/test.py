# SPDX-License-Identifier: GPL-2.0-only
"""The test command: ruff, mypy, pytest, in that order; all run, any failure counts. Or the lies."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import Exit, StagesError
from common.paths import CHECKOUT, cache_root
from common.printable import printable
from common.sabotage import lies, try_to_tell
from common.stage import stage_folders


def test(arguments: argparse.Namespace) -> int:
    """Lint, type check and test this checkout; the tests' own summary comes last.

    With --sabotage, the lies instead.
    """
    if arguments.sabotage is not None:
        return _sabotage(tuple(arguments.sabotage))
    files = ["common", "kernel", "tests", "bench"]
    files += [
        str(path.relative_to(CHECKOUT))
        for folder in stage_folders().values()
        for path in sorted(folder.glob("*.py"))
    ]
    python = [sys.executable, "-m"]
    steps = [
        [*python, "ruff", "check", *files],
        [*python, "ruff", "format", "--check", *files],
        [*python, "mypy", *files],
        [*python, "pytest", *arguments.further],
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


def _sabotage(names: tuple[str, ...]) -> int:
    """Every lie must be caught: 1 when one is not, 3 when one could not even be told."""
    told = lies(names)
    caught = errors = 0
    with tempfile.TemporaryDirectory(prefix="kexec-stages-sabotage-") as folder:
        for lie in told:
            print(f"{lie.name} ...", file=sys.stderr, flush=True)
            found = try_to_tell(lie, Path(folder) / lie.name)
            if isinstance(found, StagesError):
                errors += 1
                print(f"ERROR       {lie.name}: {found}", *found.details, sep="\n    ", flush=True)
                continue
            caught += found.caught
            word = f"caught      {lie.name} by" if found.caught else f"NOT CAUGHT  {lie.name} by"
            print(printable(f"{word} {lie.catcher}: {found.seen}"), flush=True)
            shutil.rmtree(Path(folder) / lie.name)
    print(f"{caught} of {len(told)} lies caught, each by the check that claims to")
    return Exit.HARNESS if errors else Exit.PASS if caught == len(told) else Exit.FAIL


def _cache(tool: str) -> str:
    return str(cache_root() / "tools" / tool)
