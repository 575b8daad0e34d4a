# SPDX-License-Identifier: GPL-2.0-only
"""Splats that the user knows of: what of them does not fail a run, until when, and what is told.

The list belongs to whoever judges, not to the run: it is an argument of `run`, `gate`, `report`
and `judge`, and nothing of it is recorded. A run that brought its own would be excused by whom it
accuses. Dates are held against the day on which the run began, so that a stored run is judged the
same whenever it is judged with the same list.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from common.errors import UsageError
from common.judge.verdict import TrialVerdict, Verdict, judge
from common.record.console import Splat
from common.record.dialogue import Side
from common.record.evidence import Run, Trial
from common.record.stored_file import first_fault
from common.stage.declaration import Stage

NO_SPLAT = "no_splat"
_MOST_BYTES = 1 << 20
_TRACE = "Call Trace:"
_OF_TRACE = 64
"""Console lines behind a splat within which a call trace is its own."""
_WARN = 1 << 9
"""The taint that a WARNING leaves: include/linux/panic.h, TAINT_WARN."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return pattern


class KnownSplat(BaseModel):
    """An entry of the list: until `expiry`, that day included, what matches is known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    pattern: Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
    """A regular expression, looked for in the console line."""
    reason: Annotated[str, Field(min_length=1)]
    link: Annotated[str, Field(pattern=r"^https?://\S+$")]
    expiry: date

    def matches(self, splat: Splat) -> bool:
        """Never what a kernel dies of: that is no noise."""
        return not splat.fatal and bool(re.search(self.pattern, splat.text))

    def __str__(self) -> str:
        return f"{self.pattern!r} ({self.reason}; {self.link}; until {self.expiry})"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    splat: tuple[KnownSplat, ...] = Field(min_length=1, strict=False)


@dataclass(frozen=True)
class Judged:
    """A verdict with the list, and what there is to say of it."""

    verdict: Verdict
    told: tuple[str, ...]
    """A sentence for each splat that an entry matches, whether its date has passed or not."""
    matched: frozenset[KnownSplat]
    expired: tuple[KnownSplat, ...]
    """All entries whose date has passed, whether they matched or not."""


def read_known_splats(path: Path) -> tuple[KnownSplat, ...]:
    """The entries of a TOML file. Raises UsageError for one that is no such list."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise UsageError(f"--splats {path}: more than {_MOST_BYTES >> 20} MiB")
        return _File.model_validate(tomllib.loads(data.decode())).splat
    except ValidationError as error:
        raise UsageError(f"--splats {path}: {first_fault(error)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--splats {path}: no TOML: {error}") from None


def judge_with(run: Run, stage: Stage, known: Sequence[KnownSplat]) -> Judged:
    """The verdict where splats that are known, and not for too long, fail nothing.

    They are told in the answer of `no_splat` and in the verdict's sentence. Raises UsageError
    where the run does not say when it began.
    """
    if not known:
        return Judged(judge(run, stage), (), frozenset(), ())
    day = _day(run)
    told: list[str] = []
    matched: set[KnownSplat] = set()
    trials: list[Trial] = []
    excused: dict[str, list[str]] = {}
    for trial in run.trials:
        kept: list[Splat] = []
        gone: list[Splat] = []
        for splat in trial.console.splats:
            if (
                gone
                and splat.text.startswith(_TRACE)
                and splat.number - gone[-1].number < _OF_TRACE
            ):
                continue
            entry = next((one for one in known if one.matches(splat)), None)
            if entry is None:
                kept.append(splat)
                continue
            matched.add(entry)
            fresh = day <= entry.expiry
            (gone if fresh else kept).append(splat)
            said = f"line {splat.number}, {splat.text}: {'known' if fresh else 'EXPIRED'}, {entry}"
            told.append(f"{trial.setting.name}: {said}")
            if fresh:
                excused.setdefault(trial.setting.name, []).append(said)
        trials.append(_without(trial, kept, gone) if gone else trial)
    verdict = judge(run.model_copy(update={"trials": tuple(trials)}), stage)
    expired = tuple(entry for entry in known if day > entry.expiry)
    return Judged(_telling(verdict, excused), tuple(told), frozenset(matched), expired)


def unmatched(known: Sequence[KnownSplat], judged: Sequence[Judged]) -> Iterator[str]:
    """A sentence for each entry that no run had a splat for."""
    matched = frozenset[KnownSplat]().union(*(one.matched for one in judged))
    yield from (f"matched nothing: {entry}" for entry in known if entry not in matched)


def _day(run: Run) -> date:
    try:
        return datetime.fromisoformat(run.started).astimezone(UTC).date()
    except ValueError:
        raise UsageError(f"{run.started!r} is no time for a run to start at") from None


def _without(trial: Trial, kept: Sequence[Splat], gone: Sequence[Splat]) -> Trial:
    """The trial as if these had not been said, and without the taint that a WARNING leaves."""
    console = trial.console.model_copy(update={"splats": tuple(kept)})
    boots = trial.console.boots
    second = boots[1].number if len(boots) > 1 else None
    warned = {
        "incoming" if second is not None and splat.number > second else "outgoing"
        for splat in gone
        if splat.text.startswith("WARNING: ")
    }
    warned -= {
        "incoming" if second is not None and splat.number > second else "outgoing"
        for splat in kept
        if splat.text.startswith("WARNING: ")
    }
    sides = tuple(_untainted(side) if side.name in warned else side for side in trial.sides)
    return trial.model_copy(update={"console": console, "sides": sides})


def _untainted(side: Side) -> Side:
    facts = {
        key: str(int(text) & ~_WARN)
        if key in ("kernel.taint", "kernel.taint_at_end") and text.isascii() and text.isdigit()
        else text
        for key, text in side.facts.items()
    }
    return side.model_copy(update={"facts": facts})


def _telling(verdict: Verdict, excused: dict[str, list[str]]) -> Verdict:
    """The verdict, saying what it does not count."""
    if not excused:
        return verdict
    mains = tuple(_with_known(trial, excused.get(trial.trial, [])) for trial in verdict.trials)
    count = sum(map(len, excused.values()))
    why = f"{verdict.why}; {count} known splat{'s' * (count > 1)} not counted"
    return verdict.model_copy(update={"trials": mains, "why": why})


def _with_known(trial: TrialVerdict, said: Sequence[str]) -> TrialVerdict:
    answers = tuple(
        answer.model_copy(
            update={
                "outcome": answer.outcome.model_copy(
                    update={"seen": "; ".join([f"{answer.outcome.seen} beside these", *said])}
                )
            }
        )
        if said and answer.check == NO_SPLAT
        else answer
        for answer in trial.answers
    )
    return trial.model_copy(update={"answers": answers})
