# SPDX-License-Identifier: GPL-2.0-only
"""What a console says of upstream's tests. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

OK, SKIPPED, FAILED = "ok", "skipped", "not ok"
# After printk's time and a space: a suite's own line is not indented, its tests' are.
_KUNIT = re.compile(r"^\[ *\d+\.\d+\] {5,}(ok|not ok) \d+ (.*)$")
_KSELFTEST = re.compile(r"^(ok|not ok) \d+ (.*)$")
_SUITE = re.compile(r"^\[ *\d+\.\d+\] +# Subtest: (.*)$")

Results = Mapping[str, str]
"""Test -> how it ended; "KUnit SUITE.TEST" or "iommufd TEST"."""


def results(console: str) -> Results:
    """Every test that the console has the end of. Raises ValueError when the selftest died."""
    found: dict[str, str] = {}
    suite = ""
    for line in console.splitlines():
        if match := _SUITE.match(line):
            suite = match[1]
        elif match := _KUNIT.match(line):
            name, _, directive = match[2].partition(" # ")
            found[f"KUnit {suite}.{name.strip()}"] = _end(match[1], directive)
        elif match := _KSELFTEST.match(line):
            name, _, directive = match[2].partition(" # ")
            found[f"iommufd {name.strip()}"] = _end(match[1], directive)
    if "# iommufd: status" not in console:
        raise ValueError("the console ends before the selftest did")
    return found


def _end(word: str, directive: str) -> str:
    return SKIPPED if directive.startswith("SKIP") else word


def counts(found: Results, group: str) -> Sequence[int]:
    """How many of a group ("KUnit", "iommufd") were ok, skipped, not ok."""
    ends = [end for name, end in found.items() if name.startswith(f"{group} ")]
    return [ends.count(end) for end in (OK, SKIPPED, FAILED)]


def differences(before: Results, after: Results) -> list[str]:
    """A line for each test that did not end as it did before, or is only in one of them."""
    return [
        f"{name}: {before.get(name, 'absent')}, with the series {after.get(name, 'absent')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
