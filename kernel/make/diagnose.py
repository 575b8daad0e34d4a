# SPDX-License-Identifier: GPL-2.0-only
"""Finds in a build's output what went wrong first; pure functions on lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kernel.system.space import FULL

MAX_ERRORS = 3
MAX_CONTEXT = 8

# file:line[:column]: error: … of compilers, assemblers and Kconfig
_PLACED = re.compile(
    r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?:\d+:)? ?"
    r"(?P<what>(?:fatal )?error: .*|Error: .*|syntax error.*|recursive dependency.*|"
    r"invalid statement.*|unknown statement.*)"
)
_UNPLACED = re.compile(
    r"undefined reference to|multiple definition of|^ERROR: modpost:|^[\w-]*ld(\.\w+)?: error|"
    r"^(\S+: )?fatal error: |No rule to make target|internal compiler error|"
    r"^objtool: .*error|[Cc]ommand not found|: not found$|^FAILED |Killed|"
    r"^Makefile:\d+: \*\*\* |^\S+: \d+: .*: not found"
)
_CONTEXT = re.compile(r"^\s+(\d+ )?\||^\s*\^|^\S+: note: |^\s{2,}(?![A-Z0-9]+ )\S")
_LEAD = re.compile(r"^In file included from |^\s+from |: In function |: At top level:")
_MAKE = re.compile(r"^make(\[\d+\])?: \*\*\* ")


_MISSING = re.compile(
    r"No rule to make target '(?P<target>[^']+)'"
    r"|(?:fatal error: |can't open file [\"'])?(?P<file>[\w./+-]+)[\"']?: No such file or directory"
)


@dataclass(frozen=True)
class BuildFailure:
    """What a failed build said first, with the lines that belong to it."""

    summary: str
    lines: tuple[str, ...]
    disk_full: bool


def from_source(line: str) -> str:
    """The line with paths relative to the kernel tree instead of the build folder in it."""
    return re.sub(r"(?<![\w./])\.\./(?=\w)", "", line)


def diagnose(output: Sequence[str]) -> BuildFailure:
    """The first errors in a build's output: compiler before linker before make."""
    lines = [from_source(line.rstrip("\r")) for line in output]
    full = any(FULL in line for line in lines)
    starts = [i for i, line in enumerate(lines) if _PLACED.match(line)]
    if not starts:
        starts = [
            i for i, line in enumerate(lines) if _UNPLACED.search(line) and not _MAKE.match(line)
        ]
    if not starts:
        starts = [i for i, line in enumerate(lines) if "***" in line]
    if not starts:
        tail = [line for line in lines if line.strip()][-3:]
        return BuildFailure(tail[-1] if tail else "make printed nothing", tuple(tail), full)
    told: list[str] = []
    end = 0
    for start in starts[:MAX_ERRORS]:
        first = start
        while first > end and _LEAD.search(lines[first - 1]):
            first -= 1
        after = start + 1
        while (
            after < len(lines)
            and after - start <= MAX_CONTEXT
            and _CONTEXT.match(lines[after])
            and not _PLACED.match(lines[after])
        ):
            after += 1
        told.extend(lines[max(first, end) : after])
        end = after
    summary = lines[starts[0]]
    if "Killed" in summary:
        summary += " (the machine ran out of memory?)"
    return BuildFailure(summary, tuple(told), full)


def missing_files(output: Sequence[str]) -> list[str]:
    """Files of the tree that a build's output calls missing; an object's source as well."""
    found: list[str] = []
    for line in map(from_source, output):
        if match := _MISSING.search(line):
            name = match["target"] or match["file"]
            stem, dot, suffix = name.rpartition(".")
            found += [name, *(f"{stem}.{c}" for c in "cS" if dot and suffix == "o")]
    return list(dict.fromkeys(found))
