# SPDX-License-Identifier: GPL-2.0-only
"""What can go wrong on the way to a kernel; each error has the command line's exit status."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.errors import Exit, StagesError


class KernelError(StagesError):
    """Base of all errors of this package; str() is one sentence, `details` are lines below it."""

    exit_status = Exit.HARNESS


class SourceError(KernelError):
    """The user named something that is not a usable kernel tree, patch or fragment."""

    exit_status = Exit.USAGE


class FetchError(KernelError):
    """The distribution's source package could not be had."""


class DiskFull(KernelError):
    """Not enough disk space, found out before or while building."""


class CacheError(KernelError):
    """The cache cannot be written, or does not give back what was put into it."""


class ToolMissing(KernelError):
    """A program that the kernel's build needs is not installed."""

    def __init__(self, missing: Sequence[tuple[str, str]]) -> None:
        tools = ", ".join(tool for tool, _ in missing)
        packages = " ".join(dict.fromkeys(package for _, package in missing))
        super().__init__(f"cannot build a kernel without {tools} (apt install {packages})")
        self.missing = tuple(missing)


class BuildTimeout(KernelError):
    """A build, or a program on the way to it, did not end within its deadline."""


class MissingKconfig(KernelError):
    """The tree does not know what the whole demonstration is about: nothing to run here."""

    exit_status = Exit.SKIP

    def __init__(self, symbols: Sequence[str], tree: str) -> None:
        names = ", ".join(f"CONFIG_{symbol}" for symbol in symbols)
        super().__init__(f"{tree} has no {names}")
        self.symbols = tuple(symbols)


class KernelBuildError(KernelError):
    """The kernel did not build; 125 lets `git bisect run` step over the commit."""

    exit_status = Exit.NO_KERNEL

    def __init__(
        self,
        message: str,
        *,
        details: Sequence[str] = (),
        log: Path | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.command = shlex.join(command)
        where = [f"log: {log}"] if log else []
        again = [f"again: {self.command}"] if command else []
        super().__init__(message, details=[*details, *where, *again])


class PatchError(KernelBuildError):
    """A patch of the series does not apply."""

    def __init__(self, patch: Path, message: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(message, details=details)
        self.patch = patch


class ConfigSymbolLost(KernelBuildError):
    """Symbols that a fragment asks for did not survive `make olddefconfig`."""

    def __init__(self, message: str, symbols: Sequence[str], *, details: Sequence[str]) -> None:
        super().__init__(message, details=details)
        self.symbols = tuple(symbols)
