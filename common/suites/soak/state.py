# SPDX-License-Identifier: GPL-2.0-only
"""The state of a soak on disk: its results, the next trial, and the table.

A *round* is every trial of every chosen stage, once. Below CACHE/soak/NAME:

    state.json       what was begun (State)
    results.jsonl    one Result a line, in the order of the trials, appended as each one ends
    wrong/KIND       the run folder of the first wrong trial of each kind
    disturbed/KIND   the same of those that ended DISTURBED
    running/         the trial that is going on
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import exp, lgamma, log, log1p
from pathlib import Path
from typing import Literal

from pydantic import Field
from tabulate import tabulate

from common.errors import Exit, HarnessError, UsageError
from common.paths import cache_root
from common.record.dialogue import Stored
from common.text import printable

CONFIDENCE = 0.95
HARNESS = "HARNESS"
"""The status of a trial that raised an error instead of leaving a record."""
GIVE_UP_AFTER = 5
"""Trials in a row that could not be run: then no other will do better."""

Kind = Literal["right", "disturbed", "wrong"]


class Chosen(Stored):
    """What the options of a soak ask for; another choice is another soak."""

    stages: tuple[str, ...]
    """Labels, in order."""
    controls: bool
    load: int
    others: dict[str, str]
    """Options that are not at their default: kernels, machine."""


class State(Stored):
    """A soak as it was begun. Results are comparable as long as all of this is the same."""

    chosen: Chosen
    trials: tuple[tuple[str, str], ...]
    """Stage label and trial name of each trial of a round, in order."""
    commit: str
    begun: str
    kernels: dict[str, str] = Field(default_factory=dict)
    """Keys of the outgoing and the incoming kernel, by the stage's label."""


class Result(Stored):
    """One trial, at its end."""

    round: int
    stage: str
    trial: str
    status: str
    """Of common/judge/verdict.py, or HARNESS."""
    why: str
    attempts: int
    """All but the last were disturbed; the last, too, where that is the status."""
    seconds: float
    """Wall time of all attempts."""
    commit: str
    time: str
    kept: str | None = None
    """The run folder, below the soak's, where it was the first of its kind."""

    @property
    def kind(self) -> Kind:
        """A main run is right when it passed, or failed where its kernels promise nothing else and
        for the cause that was expected (XFAIL); a control when it failed as expected."""
        if self.status in ("PASS", "XPASS", "XFAIL", "FAILED AS EXPECTED"):
            return "right"
        return "disturbed" if self.status == "DISTURBED" else "wrong"

    @property
    def disturbed_attempts(self) -> int:
        """How many attempts the host corrupted."""
        return self.attempts - (self.kind != "disturbed")

    @property
    def failure(self) -> str:
        """What is the same of two trials that went wrong alike; a name for a folder."""
        words = [self.stage, self.trial, self.status.replace(" ", "-")]
        if check := re.match(r"(\w+)(?:: expected | did not notice)", self.why):
            words.append(check[1])
        return ".".join(words)


class Soak:
    """A soak's folder, read, and locked against a second harness by `opened`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = soaks_root() / name
        self.state = self._read_state()
        self.results = self._read_results()

    @property
    def running(self) -> Path:
        """Where the trial that is going on has its run folder."""
        return self.folder / "running"

    def check(self, wanted: State) -> None:
        """Raises UsageError where what was begun under this name is not what is wanted now."""
        if self.state is None:
            return
        old, new = self.state, wanted
        # Neither is known yet when the options are looked at.
        kernels, trials = wanted.kernels or old.kernels, wanted.trials or old.trials
        if old.commit != new.commit:
            was = f"at commit {old.commit}, and this is {new.commit}"
        elif old.chosen != new.chosen:
            was = f"with {_in_words(old.chosen)}; now it is {_in_words(new.chosen)}"
        elif (old.trials, old.kernels) != (trials, kernels):
            was = "with other trials or kernels than these"
        else:
            return
        raise UsageError(
            f"soak {self.name} was begun {was}: --fresh begins anew, --name NAME keeps both"
        )

    def begin(self, wanted: State) -> State:
        """The state to go on from: what was begun, else `wanted`, which is written."""
        self.check(wanted)
        if self.state is None:
            self.state = wanted
            part = self.folder / ".state.part"
            part.write_text(wanted.model_dump_json(indent=2) + "\n")
            part.replace(self.folder / "state.json")
        return self.state

    def next_trial(self) -> tuple[int, str, str]:
        """Round, stage label and name of the trial that comes after all those that ended."""
        assert self.state
        done, turn = divmod(len(self.results), len(self.state.trials))
        return (done + 1, *self.state.trials[turn])

    def finished(self, *, rounds: int | None, hours: float | None) -> bool:
        """True when there were so many rounds, or hours of trials, in all."""
        assert self.state
        if rounds is not None:
            return len(self.results) >= rounds * len(self.state.trials)
        return hours is not None and sum(r.seconds for r in self.results) >= hours * 3600

    def add(self, result: Result, run: Path) -> Result:
        """Keep or remove the trial's run folder, then note the result for good."""
        if result.kind == "right" or any(r.failure == result.failure for r in self.results):
            shutil.rmtree(run, ignore_errors=True)
        else:
            kept = f"{result.kind}/{result.failure}"
            shutil.rmtree(self.folder / kept, ignore_errors=True)  # of an interrupted `add`
            (self.folder / kept).parent.mkdir(exist_ok=True)
            run.rename(self.folder / kept)
            result = result.model_copy(update={"kept": kept})
        with (self.folder / "results.jsonl").open("a") as file:
            file.write(result.model_dump_json() + "\n")
        self.results.append(result)
        return result

    def forget(self) -> None:
        """Begin anew: what this name has seen is removed."""
        for name in ("state.json", "results.jsonl"):
            (self.folder / name).unlink(missing_ok=True)
        for name in ("wrong", "disturbed"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.state, self.results = None, []

    def mend(self) -> None:
        """Remove what a harness that was killed left: half a trial, half a line."""
        shutil.rmtree(self.running, ignore_errors=True)
        path = self.folder / "results.jsonl"
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(len(_whole_lines(file.read())))

    def _read_state(self) -> State | None:
        path = self.folder / "state.json"
        if not path.exists():
            return None
        try:
            return State.model_validate_json(path.read_bytes())
        except ValueError as error:
            raise _damaged(path, error) from None

    def _read_results(self) -> list[Result]:
        path = self.folder / "results.jsonl"
        if not path.exists():
            return []
        try:
            lines = _whole_lines(path.read_bytes()).splitlines()
            return [Result.model_validate_json(line) for line in lines]
        except ValueError as error:
            raise _damaged(path, error) from None


def soaks_root() -> Path:
    """The folder of all soaks."""
    return cache_root() / "soak"


@contextmanager
def opened(name: str, *, fresh: bool) -> Iterator[Soak]:
    """The soak of that name, new or begun before, for this harness alone.

    Raises UsageError while another one has it.
    """
    folder = soaks_root() / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"soak {name} is being run by another process; `soak --table` shows how far it is"
            ) from None
        if fresh:
            for file in ("state.json", "results.jsonl"):  # even what can no longer be read
                (folder / file).unlink(missing_ok=True)
        soak = Soak(name)
        if fresh:
            soak.forget()
        soak.mend()
        yield soak


def stored(name: str) -> Soak:
    """The soak of that name, to be looked at. Raises UsageError where there is none."""
    soak = Soak(name)
    if soak.state is None:
        have = sorted(path.parent.name for path in soaks_root().glob("*/state.json"))
        raise UsageError(f"there is no soak {name!r}; there are: {', '.join(have) or 'none'}")
    return soak


def _damaged(path: Path, error: ValueError) -> UsageError:
    return UsageError(f"{path} is damaged: {str(error).splitlines()[0]}; --fresh begins anew")


def _whole_lines(data: bytes) -> bytes:
    """Without what follows the last newline: a harness that was killed left it."""
    return data[: data.rfind(b"\n") + 1]


def _in_words(chosen: Chosen) -> str:
    words = [", ".join(chosen.stages), *(["no controls"] if not chosen.controls else [])]
    words += [f"load {chosen.load}", *(f"{k} {v}" for k, v in sorted(chosen.others.items()))]
    return "; ".join(words)


def upper_end(wrong: int, runs: int) -> float:
    """The upper end of the one-sided 95 % interval of a rate, after Clopper and Pearson.

    The rate at which so few wrong ones of so many runs, or fewer, have a chance of 5 %.
    """
    if wrong >= runs:
        return 1.0
    if wrong == 0:
        return float(1 - (1 - CONFIDENCE) ** (1 / runs))
    low, high = wrong / runs, 1.0
    for _ in range(60):  # halves the interval each time: to the last bit of a double
        middle = (low + high) / 2
        if _at_most(wrong, runs, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(most: int, runs: int, rate: float) -> float:
    """The chance of at most so many hits in so many runs; 0 < rate < 1."""
    if rate >= 1:
        return 0.0
    return sum(
        exp(
            lgamma(runs + 1)
            - lgamma(hits + 1)
            - lgamma(runs - hits + 1)
            + hits * log(rate)
            + (runs - hits) * log1p(-rate)
        )
        for hits in range(most + 1)
    )


_HEADERS = (
    "stage",
    "trial",
    "runs",
    "right",
    "disturbed\nattempts",
    "disturbed",
    "wrong",
    "at most",
)


def report(soak: Soak) -> str:
    """The soak in words: what it is, a row a trial, and the trials that were kept."""
    assert soak.state
    rounds, more = divmod(len(soak.results), len(soak.state.trials))
    further = f" and {more} of {len(soak.state.trials)} trials" if more else ""
    lines = [
        f"Soak {soak.name}: {rounds} round{'s' * (rounds != 1)}{further};"
        f" {_in_words(soak.state.chosen)}; commit {soak.state.commit}, begun {soak.state.begun}",
        "",
        _table(soak.state, soak.results),
        "",
        "At most: the upper end of the one-sided 95 % interval (Clopper-Pearson) for the rate of"
        " wrong",
        "among the runs that did not end disturbed.",
    ]
    for result in soak.results:
        if result.kept:
            lines += [
                "",
                f"{result.kind}, first in round {result.round}: {result.stage} {result.trial}"
                f" {result.status}: {result.why}",
                f"    {soak.folder / result.kept}",
            ]
    return printable("\n".join(lines)) + "\n"


def _table(state: State, results: Sequence[Result]) -> str:
    rows = []
    for stage, trial in state.trials:
        of = [r for r in results if (r.stage, r.trial) == (stage, trial)]
        rows.append([stage, trial, *_figures(of)])
    rows.append(["all", "", *_figures(results)])
    align = ("left", "left", *["right"] * 6)
    return tabulate(rows, headers=_HEADERS, disable_numparse=True, colalign=align)


def _figures(results: Sequence[Result]) -> list[str]:
    kinds = Counter(result.kind for result in results)
    attempts = sum(result.disturbed_attempts for result in results)
    judged = kinds["right"] + kinds["wrong"]
    return [
        *(str(n) for n in (len(results), kinds["right"], attempts)),
        *(str(n) for n in (kinds["disturbed"], kinds["wrong"])),
        f"{100 * upper_end(kinds['wrong'], judged):.2f} %" if judged else "-",
    ]


def counts(results: Sequence[Result]) -> str:
    """Right, disturbed and wrong so far, for a line of progress."""
    kinds = Counter(result.kind for result in results)
    return f"{kinds['right']} right, {kinds['disturbed']} disturbed, {kinds['wrong']} wrong"


def exit_of(results: Sequence[Result]) -> Exit:
    """FAIL: a trial was wrong. HARNESS: none was, but some say nothing about the kernel. PASS."""
    silent = ("DISTURBED", "ERROR", HARNESS)
    if any(r.kind == "wrong" and r.status not in silent for r in results):
        return Exit.FAIL
    return Exit.HARNESS if any(r.kind != "right" for r in results) else Exit.PASS


def give_up(results: Sequence[Result]) -> None:
    """Raises HarnessError where the last trials, one after the other, could not be run."""
    last = results[-GIVE_UP_AFTER:]
    if len(last) == GIVE_UP_AFTER and all(result.status == HARNESS for result in last):
        raise HarnessError(
            f"{GIVE_UP_AFTER} trials in a row could not be run; the last one: {last[-1].why}"
        )
