# SPDX-License-Identifier: GPL-2.0-only
"""Reads KTAP, as the kernel's own tests write it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Result = Literal["ok", "not ok", "skip"]

_RESULT = re.compile(r"( *)(ok|not ok) \d+ (?:- )?(.*?)(?:\s*# (\w+)\b.*)?$")


def results(lines: Iterable[str]) -> dict[str, Result]:
    """The tests without tests below them: their names, from the outermost on, and results.

    KTAP names a test after its subtests: those wait here until they are told whose they are.
    """
    waiting: dict[int, dict[str, Result]] = {}
    for line in lines:
        if not (found := _RESULT.fullmatch(line)):
            continue
        depth, name = len(found[1]), found[3]
        below = [level for level in waiting if level > depth]
        own: dict[str, Result] = {}
        for level in sorted(below):
            own |= {f"{name}.{inner}": result for inner, result in waiting.pop(level).items()}
        skipped = found[4] == "SKIP"
        result: Result = "skip" if skipped else "ok" if found[2] == "ok" else "not ok"
        waiting.setdefault(depth, {}).update(own or {name: result})
    # What nobody has claimed: a run that broke off keeps what it had.
    return {name: result for level in sorted(waiting) for name, result in waiting[level].items()}
