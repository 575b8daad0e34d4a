# SPDX-License-Identifier: GPL-2.0-only
"""The outcomes of a kernel that does not promise everything that the checks ask for. Pure.

A check of such a kernel is an XFAIL only where the cause was seen that its gap names, by the host's
witness or in the kernel's own errno: any other failure is one. What was to fail and holds is an
XPASS; what cannot be asked is N/A; past the gap's date, or from its release on, nothing is
expected any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from common.checks.model import Outcome
from common.checks.promise import Gap
from common.record.evidence import Trial
from common.record.setting import Setting
from common.stage.declaration import Stage


@dataclass(frozen=True)
class Expected:
    """What is expected of the kernels of a trial, and what the trial shows of the cause."""

    gap: Gap
    cause: Outcome
    causes: Mapping[str, Outcome]
    """Of checks that have one of their own."""
    holds: bool
    """True where the cause was seen, with all that goes with it."""
    expired: bool

    @property
    def why(self) -> str:
        """What the kernels do instead, as it was seen."""
        return f"{self.gap.what}: {self.cause.seen}"

    def cause_of(self, check: str) -> Outcome:
        """What was seen of why that check fell."""
        return self.causes.get(check, self.cause)

    def of(self, check: str, outcome: Outcome) -> Outcome:
        """The check's outcome in the light of it."""
        gap = self.gap
        if self.expired:
            return outcome
        if reason := gap.unasked.get(check):
            return outcome.model_copy(update={"status": "N/A", "seen": reason})
        if outcome.status == "PASS":
            return (
                outcome.model_copy(update={"status": "XPASS"}) if check in gap.breaks else outcome
            )
        doubtful = outcome.status == "DISTURBED" and check in gap.breaks
        caused = self.holds and self.cause_of(check).status == "PASS"
        if caused and not doubtful and check in gap.breaks | gap.may_break:
            return outcome.model_copy(update={"status": "XFAIL"})
        return outcome


def expected_of(trial: Trial, stage: Stage) -> Expected | None:
    """What is expected of a main run's kernels beside a pass; None where they promise all of it."""
    setting = trial.setting
    kernels = (setting.outgoing, setting.incoming)
    gap = stage.gap(setting.series, [(one.offers, bool(one.patches)) for one in kernels])
    if gap is None:
        return None
    cause = gap.cause.ask(trial)
    holds = [cause, *(check.ask(trial) for check in gap.holds)]
    return Expected(
        gap=gap,
        cause=cause,
        causes={name: check.ask(trial) for name, check in gap.causes.items()},
        holds=all(outcome.status == "PASS" for outcome in holds),
        expired=gap.until.past(setting.outgoing.release, day_of(setting)),
    )


def day_of(setting: Setting) -> date:
    """The day on which a trial began, in UTC."""
    return datetime.fromtimestamp(
        (setting.started_ns + setting.clock_offset_ns) / 1e9, tz=UTC
    ).date()
