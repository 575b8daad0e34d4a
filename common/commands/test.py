# SPDX-License-Identifier: GPL-2.0-only
"""The test command: ruff, mypy, pytest, in that order; all run, any failure counts."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

from common.errors import Exit
from common.paths import CHECKOUT, cache_root
from common.stage import stage_folders


def test(arguments: argparse.Namespace) -> int:
    """Lint, type check and test this checkout; the tests' own summary comes last."""
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
        [*python, "pytest", *arguments.pytest_args],
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


def _cache(tool: str) -> str:
    return str(cache_root() / "tools" / tool)
