# SPDX-License-Identifier: GPL-2.0-only
"""Which compiler builds the kernels, and what else must be installed for that."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.paths import cache_root
from kernel.errors import SourceError, ToolMissing
from kernel.system.process import clean_environment, run_captured

ASK_SECONDS = 30.0

_PROGRAMS = (
    ("make", "make"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("python3", "python3"),
    ("tar", "tar"),
    ("patch", "patch"),
    ("lz4", "lz4"),
)


@dataclass(frozen=True)
class Toolchain:
    """A compiler as make is told of it; `identity` changes when the compiler or linker does."""

    compiler: str
    identity: str
    llvm: str | None
    ccache: bool
    arch: Architecture = DEFAULT

    def make_arguments(self) -> list[str]:
        """The variables on make's command line that choose the compiler."""
        prefix = "ccache " if self.ccache else ""
        if self.llvm is not None:
            host = "clang" if self.llvm == "1" else f"clang{self.llvm}"
            words = [f"LLVM={self.llvm}", f"CC={prefix}{self.compiler}", f"HOSTCC={prefix}{host}"]
        else:
            words = [f"CC={prefix}{self.compiler}", f"HOSTCC={prefix}gcc"]
        return [*self.arch.make_variables, *words]

    def environment(self) -> dict[str, str]:
        """The variables with which ccache shares objects between kernels and worktrees."""
        return {"CCACHE_DIR": str(cache_root() / "ccache"), "CCACHE_NOHASHDIR": "1"}


def toolchain(arch: Architecture = DEFAULT) -> Toolchain:
    """$KEXEC_STAGES_CC, else the gcc for `arch`; clang brings its own binutils.

    Raises ToolMissing, or SourceError for a compiler that does not work.
    """
    compiler = os.environ.get("KEXEC_STAGES_CC") or f"{arch.cross_prefix}gcc"
    if not shutil.which(compiler):
        raise ToolMissing([(compiler, Path(compiler).name)])
    llvm = None
    if match := re.fullmatch(r"clang(-\d+)?", Path(compiler).name):
        llvm = match[1] or "1"
    linker = f"{arch.cross_prefix}ld" if llvm is None else f"ld.lld{'' if llvm == '1' else llvm}"
    if not shutil.which(linker):
        raise ToolMissing([(linker, "binutils" if llvm is None else "lld")])
    identity = [_version(compiler), _version(linker)]
    return Toolchain(compiler, "; ".join(identity), llvm, shutil.which("ccache") is not None, arch)


def _version(program: str) -> str:
    result = run_captured([program, "--version"], env=clean_environment(), timeout=ASK_SECONDS)
    if result.returncode or not result.stdout:
        raise SourceError(f"`{program} --version` does not work: {result.stderr.strip()}")
    return result.stdout.splitlines()[0]


def require_tools(chain: Toolchain) -> None:
    """Nothing when all programs and headers that a kernel's build needs are there."""
    missing = [(tool, package) for tool, package in _PROGRAMS if not shutil.which(tool)]
    if not any(tool == "gcc" for tool, _ in missing) and not _has_header(chain, "gelf.h"):
        missing.append(("gelf.h", "libelf-dev"))
    if missing:
        raise ToolMissing(missing)


def _has_header(chain: Toolchain, header: str) -> bool:
    try:
        result = subprocess.run(
            [chain.compiler, "-E", "-o", os.devnull, "-"],
            input=f"#include <{header}>\n",
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except OSError:
        return False
    return result.returncode == 0
