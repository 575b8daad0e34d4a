# SPDX-License-Identifier: GPL-2.0-only
"""What a check, a claim and a control are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from common.record.dialogue import Stored
from common.record.evidence import Trial

Status = Literal["PASS", "FAIL", "NO DATA", "DISTURBED", "XFAIL", "XPASS", "N/A"]
"""DISTURBED: it did not hold, because of the host; neither a failure nor a pass. The last three are
given by the judge, for a kernel that does not promise it: see common/judge/expected.py."""

BRIEF = 37
"""Most characters of a claim in a table of 72 columns, next to its figures."""


class Outcome(Stored):
    """A check's answer. `evidence` names the file or fact where a reader finds it."""

    status: Status
    expected: str
    seen: str
    evidence: str

    @property
    def held(self) -> bool:
        """True where the expected was seen."""
        return self.status in ("PASS", "XPASS")

    @property
    def fell(self) -> bool:
        """True where it was not seen, and should have been."""
        return self.status in ("FAIL", "NO DATA", "DISTURBED")


def _never(_trial: Trial) -> bool:
    return False


@dataclass(frozen=True)
class Check:
    """A question to the record. `ask` is pure: the same trial gives the same outcome."""

    name: str
    question: str
    ask: Callable[[Trial], Outcome]
    of_chain: bool = False
    """Asked of a chain of updates as a whole, not of each of them."""
    timed: bool = False
    """The answer depends on time limits inside the machine: if the host stalled the machine for
    long, a failure shows nothing."""
    but: Callable[[Trial], bool] = _never
    """For a check that is `timed`: failures that no busy host explains, such as a wrong errno."""
    barely: Callable[[Trial], bool] = _never
    """True where it holds only because of what is excused to the host. That a control is not
    noticed then says nothing."""


@dataclass(frozen=True)
class Said:
    """How a patch mail makes the same claim; `report --format reply` answers such a sentence."""

    words: str
    """A regular expression, matched against a paragraph in which each run of white space is one
    blank. It must be the whole statement with its negation: "device is never reset"."""
    checks: tuple[str, ...] = ()
    """The checks that answer it; empty: all checks of the claim."""


@dataclass(frozen=True)
class Claim:
    """What the stage claims, in a sentence, and the checks that show it."""

    brief: str
    """The claim in at most BRIEF characters, for a row of a table."""
    text: str
    checks: tuple[Check, ...]
    said: tuple[Said, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Control:
    """A run that must fail. It proves that the checks in `breaks` can fail.

    Each check in `breaks` must not pass, and `reason` must hold: the run failed because of what
    was done to it, and of nothing else. Checks in `may_break` may fail as a consequence; None
    means that nothing after the cause can be checked any more, except `holds`.
    """

    name: str
    what: str
    breaks: frozenset[str]
    reason: Check
    may_break: frozenset[str] | None = frozenset()
    holds: tuple[Check, ...] = ()
    cmdline: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda words: words
    same_kernel: bool = False
    without_patch: str | tuple[str, ...] | None = None
    """The patch of the series (its file's name without the number, or the start of that) which both
    kernels lack, or it and those that build on it."""
    with_patch: str | None = None
    """An injected fault: a patch in the stage's folder that both kernels have after the series."""
    with_config: str | None = None
    """A Kconfig fragment in the stage's folder, after all others."""
    incoming_only: bool = False
    """The outgoing kernel is the stage's own; only the incoming one lacks or has the patch."""
    stock: bool = False
    """Both kernels without any patch."""
    of_chain: bool = False
    """Run in a chain of updates; every other control has one update."""
    uncounted: int = 0
    """Kexecs before the first update that are not announced to the host."""

    @property
    def own_kernels(self) -> bool:
        """True when the control needs kernels other than the stage's."""
        return self.stock or any((self.without_patch, self.with_patch, self.with_config))

    def on(self, side: str) -> Control | None:
        """The control that the kernel of that side ("out" or "in") is built for."""
        return None if self.incoming_only and side == "out" else self
