# SPDX-License-Identifier: GPL-2.0-only
"""What came first: a kernel's complaint, a rule that does not hold, a side that gives up.

A workload that gives up does so because something was wrong before, and a check falls because of
either. By the stamps of the host the first of them is told first. A pure function of the Trial.
"""

from __future__ import annotations

from common.record.console import Splat
from common.record.evidence import Trial

_NO_CAUSE = "Call Trace:"
# An oops is told of in some lines before the one that ends the kernel.
_OF_OOPS = 5


def in_order(trial: Trial, told: str, *, of_time: bool = False) -> str:
    """`told`, what is wrong in the end, behind what came before it: "first; then …; then told".

    `of_time`: of a machine that never came on its complaints of time are the cause, too.
    """
    before = sorted(_before(trial, told, of_time=of_time))
    return "; then ".join([*(text for _, text in before), told])


def _before(trial: Trial, told: str, *, of_time: bool) -> list[tuple[int, str]]:
    """(time in the host's ns, what happened) of each cause that `told` does not name."""
    found: list[tuple[int, str]] = []
    splat = first_splat(trial, of_time=of_time)
    if splat and splat.text not in told:
        found.append((splat.t, f"{splat.text} (console line {splat.number})"))
    bails = [side for side in trial.sides if side.bail and side.bail not in told]
    found += [(side.ended, f"{side.name} side gave up: {side.bail}") for side in bails[:1]]
    broken = [
        (result.t, f"{side.name} rule {result.name} does not hold")
        for side in trial.sides
        for result in side.results
        if not result.ok and result.skipped is None and result.name not in told
    ]
    return [*found, *broken[:1]]


def first_splat(trial: Trial, *, of_time: bool = False) -> Splat | None:
    """The first complaint of a kernel that is no part of the oops by which it died."""
    splats = trial.console.splats
    fatal = next((splat.number for splat in splats if splat.fatal), None)
    for splat in splats:
        if fatal is not None and splat.number >= fatal - _OF_OOPS:
            return None
        # What a host that stands still brings about is judged elsewhere.
        if (of_time or not splat.of_time) and not splat.text.startswith(_NO_CAUSE):
            return splat
    return None
