# SPDX-License-Identifier: GPL-2.0-only
"""What one of the kernel's own live update tests has shown, from its machine's console. Pure.

Upstream's scripts look for one line on the console. Here that line counts only where it was said
by the incoming kernel, after a kexec, and after KHO named the outgoing one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.record.console import Boot, parse, strip_prefix
from common.record.dialogue import Line

_NOTHING_TO_RUN = re.compile("Unable to mount root fs|No working init found")
_SKIP = re.compile(r"# SKIP\b ?(.*)")
_BLAMES = re.compile(r"Bail out!|^not ok|[Ff]ail(ed|ure)")
_SAID = re.compile(r"# |INIT: |K?TAP version|(not )?ok \d|1\.\.\d|Bail out!|--- |.*KHO restore")

Status = Literal["PASS", "FAIL", "SKIP", "CRASHED", "TIMEOUT"]


@dataclass(frozen=True)
class UpstreamTest:
    """One test: its suite, and what its own script greps for on the console."""

    suite: str
    name: str
    passed: str


@dataclass(frozen=True)
class UpstreamResult:
    """What came of a test; `said` are its own lines, kernel messages left out."""

    test: UpstreamTest
    status: Status
    why: str
    said: tuple[str, ...] = ()


def over(lines: Sequence[Line], outgoing: str) -> bool:
    """True when the machine went through its firmware: every test ends so, well or not.

    `outgoing` is that kernel's release: a second boot of it was none by kexec.
    """
    boots = [boot.release for boot in parse(lines).boots]
    return boots.count(outgoing) > 1


def weigh(
    test: UpstreamTest, lines: Sequence[Line], *, outgoing: str, incoming: str, in_time: bool
) -> UpstreamResult:
    """The test's result from the console of its machine, which ran from `outgoing` on. Pure."""
    console = parse(lines)
    texts = [strip_prefix(line.text) for line in lines]
    said = tuple(text for text in texts if _SAID.match(text))

    def result(status: Status, why: str) -> UpstreamResult:
        return UpstreamResult(test, status, why, said)

    first, second = _boots(console.boots, outgoing, incoming)
    handed_over = any(h.release == outgoing for h in console.handovers)
    passed = second is not None and any(
        test.passed in line.text and line.t >= second.t for line in lines
    )
    for splat in console.splats:
        # KHO's own test gives the incoming kernel nothing to run: it ends in this panic.
        if splat.fatal and not (
            test.suite == "kho" and second and _NOTHING_TO_RUN.search(splat.text)
        ):
            return result("CRASHED", splat.text)
    if skips := [found[1] or "no reason given" for t in texts if (found := _SKIP.search(t))]:
        return result("SKIP", f"the test says: {skips[0]}")
    if passed and console.kexecs and handed_over:
        return result("PASS", f"{incoming} after a kexec from {outgoing}")
    if not first:
        return result("FAIL", f"{outgoing} did not come up")
    if not in_time:
        return result("TIMEOUT", f"no end in time; last: {(said or ('nothing',))[-1]}")
    blamed = (*(text for text in said if _BLAMES.search(text)), *said[::-1], "no word")[0]
    if not second or not console.kexecs:
        return result("FAIL", f"no kexec to {incoming}: {blamed}")
    if not handed_over:
        return result("FAIL", f"{incoming} says nothing of a handover from {outgoing}")
    return result("FAIL", f"no {test.passed!r}: {blamed}")


def _boots(boots: Sequence[Boot], outgoing: str, incoming: str) -> tuple[Boot | None, Boot | None]:
    """The first boot, of the outgoing kernel, and the second, of the incoming; None without."""
    first = boots[0] if boots and boots[0].release == outgoing else None
    second = boots[1] if first and len(boots) > 1 and boots[1].release == incoming else None
    return first, second
