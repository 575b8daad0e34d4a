# SPDX-License-Identifier: GPL-2.0-only
"""Known splats: which do not fail a run, until when, and how they are reported.

The list belongs to whoever judges, not to the run: it is an argument of `run`, `gate`, `report`
and `judge`, and nothing of it is recorded. A run that brought its own would be excused by whom it
accuses. Dates are held against the day on which the run began, so that a stored run is judged the
same whenever it is judged with the same list.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
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
        raise ValueError(f"is not a regular expression: {error}") from None
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
        raise UsageError(f"--splats {path}: not TOML: {error}") from None


def judge_with(run: Run, stage: Stage, known: Sequence[KnownSplat]) -> Judged:
    """The verdict where splats that are known, and not for too long, fail nothing.

    They are told in the answer of `no_splat` and in the verdict's sentence. Raises UsageError
    where the run does not say when it began.
    """
    if not known:
        return Judged(judge(run, stage), (), frozenset(), ())
    day = run.began().date()
    found = [_sorted(trial, known, day) for trial in run.trials]
    trials = tuple(map(_without, run.trials, found))
    verdict = judge(run.model_copy(update={"trials": trials}), stage)
    by_name = {t.setting.name: one for t, one in zip(run.trials, found, strict=True)}
    excused = {name: one.excused for name, one in by_name.items() if one.excused}
    return Judged(
        verdict=_telling(verdict, excused),
        told=tuple(f"{name}: {said}" for name, one in by_name.items() for said in one.told),
        matched=frozenset[KnownSplat]().union(*(one.matched for one in found)),
        expired=tuple(entry for entry in known if day > entry.expiry),
    )


@dataclass
class _Sorted:
    """A trial's splats: those that count, and those that are known."""

    kept: list[Splat] = field(default_factory=list)
    gone: list[Splat] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    """Of `told`, what is said of those that are gone."""
    matched: set[KnownSplat] = field(default_factory=set)


def _sorted(trial: Trial, known: Sequence[KnownSplat], day: date) -> _Sorted:
    found = _Sorted()
    for splat in trial.console.splats:
        if found.gone and _is_trace_of(splat, found.gone[-1]):
            continue
        entry = next((one for one in known if one.matches(splat)), None)
        if entry is None:
            found.kept.append(splat)
            continue
        fresh = day <= entry.expiry
        said = f"line {splat.number}, {splat.text}: {'known' if fresh else 'EXPIRED'}, {entry}"
        found.matched.add(entry)
        found.told.append(said)
        (found.gone if fresh else found.kept).append(splat)
        found.excused += [said] if fresh else []
    return found


def _is_trace_of(splat: Splat, before: Splat) -> bool:
    return splat.text.startswith(_TRACE) and splat.number - before.number < _OF_TRACE


def unmatched(known: Sequence[KnownSplat], judged: Sequence[Judged]) -> Iterator[str]:
    """A sentence for each entry that no run had a splat for."""
    matched = frozenset[KnownSplat]().union(*(one.matched for one in judged))
    yield from (f"matched nothing: {entry}" for entry in known if entry not in matched)


def _without(trial: Trial, found: _Sorted) -> Trial:
    """The trial as if what is gone had not been said, nor had a WARNING left its taint."""
    if not found.gone:
        return trial
    console = trial.console.model_copy(update={"splats": tuple(found.kept)})
    boots = trial.console.boots
    second = boots[1].number if len(boots) > 1 else None

    def warned(splats: Sequence[Splat]) -> set[str]:
        """The sides whose kernels these WARNINGs are of."""
        return {
            "incoming" if second is not None and splat.number > second else "outgoing"
            for splat in splats
            if splat.text.startswith("WARNING: ")
        }

    clean = warned(found.gone) - warned(found.kept)
    sides = tuple(_untainted(side) if side.name in clean else side for side in trial.sides)
    return trial.model_copy(update={"console": console, "sides": sides})


def _untainted(side: Side) -> Side:
    facts = {
        key: str(int(text) & ~_WARN)
        if key in ("kernel.taint", "kernel.taint_at_end") and text.isascii() and text.isdigit()
        else text
        for key, text in side.facts.items()
    }
    return side.model_copy(update={"facts": facts})


def _telling(verdict: Verdict, excused: Mapping[str, Sequence[str]]) -> Verdict:
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
