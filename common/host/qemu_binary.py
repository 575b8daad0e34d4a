# SPDX-License-Identifier: GPL-2.0-only
"""Which QEMU the machines use: `--qemu PATH`, else $KEXEC_STAGES_QEMU, else the one in PATH.

The option goes through the environment as well, so that all who start a QEMU, or a process
that will, need not be told of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.errors import HarnessError, UsageError

VARIABLE = "KEXEC_STAGES_QEMU"
_VERSION = re.compile(r"QEMU emulator version (\d+(?:\.\d+)+)")
_SECONDS = 20


def choose(path: str | None, arch: Architecture = DEFAULT) -> None:
    """Let all machines use the QEMU at `path`; None leaves the choice to the environment.

    Raises UsageError when what was chosen is no QEMU that could run a machine.
    """
    source = "--qemu" if path else VARIABLE
    if path:
        os.environ[VARIABLE] = path
    if not (named := os.environ.get(VARIABLE)):
        return
    program = Path(shutil.which(named) or named).absolute()
    os.environ[VARIABLE] = str(program)
    said = _said(program, source, "--version")
    if not _VERSION.search(said):
        raise UsageError(f"{source}: {program} is not a QEMU: it says {_first_line(said)!r}")
    if not re.search(rf"^{arch.machine}\b", _said(program, source, "-machine", "help"), re.M):
        raise UsageError(
            f"{source}: {program} has no machine {arch.machine}: is it a QEMU for {arch.title}?"
        )


def _said(program: Path, source: str, *words: str) -> str:
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except OSError as error:
        raise UsageError(f"{source}: {program}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{source}: {program} says nothing within {_SECONDS} s") from None
    return done.stdout or done.stderr


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:80]


def qemu_path(arch: Architecture = DEFAULT) -> Path:
    """The program. Raises HarnessError where there is none."""
    if found := os.environ.get(VARIABLE) or shutil.which(arch.qemu):
        if not os.access(found, os.X_OK):
            raise HarnessError(f"{VARIABLE}: {found} is not a program that can be started")
        return Path(found)
    raise HarnessError(f"{arch.qemu} is not installed; ./kexec-stages doctor says how to get it")


def qemu_version(program: Path) -> str:
    """Its version, such as "10.0.2", as it says itself. Raises HarnessError when it does not."""
    try:
        file = program.stat()
    except OSError as error:
        raise HarnessError(f"{program} --version: {error}") from None
    return _version_of(program, (file.st_dev, file.st_ino, file.st_mtime_ns))


@lru_cache(maxsize=8)
def _version_of(program: Path, _file: tuple[int, int, int]) -> str:
    """Asked once of each file: it takes some 60 ms, and every trial asks."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessError(f"{program} --version: {error}") from None
    if not (match := _VERSION.search(done.stdout)):
        raise HarnessError(f"{program} is not a QEMU: it says {_first_line(done.stdout)!r}")
    return match[1]
