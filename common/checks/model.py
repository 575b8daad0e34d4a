# SPDX-License-Identifier: GPL-2.0-only
"""What a check, a claim and a control are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from common.record.dialogue import Stored
from common.record.evidence import Trial

Status = Literal["PASS", "FAIL", "NO DATA", "DISTURBED", "XFAIL", "XPASS", "N/A"]
"""DISTURBED: it did not hold, and the host is why; neither a failure nor a pass. The last three are
the judge's, on a kernel that does not promise it: see common/judge/expected.py."""

BRIEF = 37
"""Characters that a claim has in a table of 72 columns, beside its figures."""


class Outcome(Stored):
    """A check's answer. `evidence` names the file or fact where a reader finds it."""

    status: Status
    expected: str
    seen: str
    evidence: str

    @property
    def held(self) -> bool:
        """True where what was asked for was seen."""
        return self.status in ("PASS", "XPASS")

    @property
    def fell(self) -> bool:
        """True where it was not, and should have been."""
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
    """The answer depends on bounds in time inside the machine: where the machine stood still for
    long because the host did, a failure shows nothing."""
    but: Callable[[Trial], bool] = _never
    """Of a check that is `timed`: failures that no host explains, as a wrong errno."""


@dataclass(frozen=True)
class Said:
    """How a patch mail says what a claim says; `report --format reply` answers such a sentence."""

    words: str
    """A regular expression over a paragraph whose blanks and line ends are single blanks. It has
    to be the whole statement, its negation included: "device is never reset"."""
    checks: tuple[str, ...] = ()
    """The checks that answer it; none: all of the claim's."""


@dataclass(frozen=True)
class Claim:
    """A sentence the stage wants believed, and the checks that show it."""

    brief: str
    """The same for a row of a table: at most BRIEF characters."""
    text: str
    checks: tuple[Check, ...]
    said: tuple[Said, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Control:
    """A run that must fail. It proves that the checks in `breaks` can.

    Each check in `breaks` must not pass, and `reason` must hold: the run failed for what was
    done to it and nothing else. Checks in `may_break` follow from it; None means that
    everything after the cause is gone, so that only `holds` is still asked for.
    """

    name: str
    what: str
    breaks: frozenset[str]
    reason: Check
    may_break: frozenset[str] | None = frozenset()
    holds: tuple[Check, ...] = ()
    cmdline: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda words: words
    same_kernel: bool = False
    without_patch: str | None = None
    """The patch of the series (its file's name, or the start of it) that both kernels lack."""
    with_patch: str | None = None
    """An injected fault: a patch in the stage's folder that both kernels have after the series."""
    with_config: str | None = None
    """A Kconfig fragment in the stage's folder, after all others."""
    incoming_only: bool = False
    """The outgoing kernel is the stage's: what is left out or added is so in the incoming one."""
    stock: bool = False
    """Both kernels without any patch."""
    of_chain: bool = False
    """Run in a chain of updates; every other control is of one update."""
    uncounted: int = 0
    """Kexecs before the first update, of which nobody is told."""

    @property
    def own_kernels(self) -> bool:
        """True when the stage's kernels will not do."""
        return self.stock or any((self.without_patch, self.with_patch, self.with_config))

    def on(self, side: str) -> Control | None:
        """The control that the kernel of that side ("out" or "in") is built for."""
        return None if self.incoming_only and side == "out" else self
