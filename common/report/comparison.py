# SPDX-License-Identifier: GPL-2.0-only
"""What changed between two runs of a stage: what got worse, what else, and the times. Pure."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal, get_args

from tabulate import tabulate

from common.arch.known import DEFAULT
from common.judge.verdict import Answer, RunStatus, Verdict
from common.record.evidence import Run
from common.report.host import machine_words
from common.stage.declaration import Stage
from common.text import printable

WIDTH = 72
CONFIDENCE = 0.95
NEEDED = 6
"""Trials of each run without which there is no interval of that confidence: 1 - 2 / 2^5 < 0.95."""

_RANK = {status: rank for rank, status in enumerate(get_args(RunStatus))}
Change = Literal["worse", "better", "other"]


@dataclass(frozen=True)
class Difference:
    """Something that is not in both runs what it was; `text` is a sentence or two."""

    change: Change
    what: str
    text: str


def differences(before: Verdict, after: Verdict) -> tuple[Difference, ...]:
    """What differs between two verdicts on one stage, the worst first."""
    found = [*_status(before, after), *_checks(before, after), *_controls(before, after)]
    return tuple(sorted(found, key=lambda one: get_args(Change).index(one.change)))


def worsened(before: Verdict | None, after: Verdict) -> tuple[Difference, ...]:
    """What is worse than in `before`; nothing where there is none."""
    found = differences(before, after) if before else ()
    return tuple(one for one in found if one.change == "worse")


def _status(before: Verdict, after: Verdict) -> Iterator[Difference]:
    if before.status != after.status:
        change: Change = "worse" if _RANK[after.status] > _RANK[before.status] else "better"
        yield Difference(change, "verdict", f"{before.status} to {after.status}: {after.why}")


def _checks(before: Verdict, after: Verdict) -> Iterator[Difference]:
    old, new = _first_bad_or_good(before), _first_bad_or_good(after)
    for name, answer in old.items():
        was = answer.outcome.status
        if not new:
            continue  # no main run: the verdict's own line says so
        if name not in new:
            change: Change = "worse" if answer.outcome.held else "other"
            yield Difference(change, name, f"{was} to nothing: it is no longer checked")
        elif (now := new[name].outcome).status != was:
            seen = f"{was} to {now.status}: expected {now.expected}; seen {now.seen}"
            yield Difference("worse" if answer.outcome.held else "better", name, seen)
    for name in (name for name in new if old and name not in old):
        status = new[name].outcome.status
        yield Difference("other", name, f"new; {status}: {new[name].outcome.seen}")


def _first_bad_or_good(verdict: Verdict) -> dict[str, Answer]:
    """Each check's answer: of the first main trial in which it did not pass, else any."""
    found: dict[str, Answer] = {}
    for answer in (answer for trial in verdict.trials for answer in trial.answers):
        if answer.check not in found or found[answer.check].outcome.held:
            found[answer.check] = answer
    return found


def _controls(before: Verdict, after: Verdict) -> Iterator[Difference]:
    old = {control.control: control for control in before.controls}
    new = {control.control: control for control in after.controls}
    for name, was in old.items():
        if name in new and (now := new[name]).good != was.good:
            change: Change = "better" if now.good else "worse"
            yield Difference(change, f"control {name}", f"{was.status} to {now.status}: {now.why}")
    if gone := [name for name in old if name not in new]:
        yield Difference("other", "controls no longer run", ", ".join(gone))
    if added := [name for name in new if name not in old]:
        bad = [name for name in added if not new[name].good]
        said = f"; of these did not fail as expected: {', '.join(bad)}" if bad else ""
        yield Difference("other", "controls not run before", ", ".join(added) + said)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where the median of such values lies, with CONFIDENCE; None for fewer than NEEDED.

    The order statistics' interval: nothing is assumed of how the values are distributed.
    """
    ordered, count = sorted(values), len(values)
    tail, cut = 0.0, 0
    while cut < count / 2 and 2 * (tail + comb(count, cut) / 2**count) <= 1 - CONFIDENCE:
        tail += comb(count, cut) / 2**count
        cut += 1
    return (ordered[cut - 1], ordered[count - cut]) if cut else None


def comparison(
    names: tuple[str, str], runs: tuple[Run, Run], verdicts: tuple[Verdict, Verdict], stage: Stage
) -> str:
    """The whole comparison as text, 72 columns."""
    found = differences(*verdicts)
    parts = [
        "\n".join(
            f"{letter}  {name}: stage {verdict.stage} {verdict.status} ({run.started})"
            for letter, name, run, verdict in zip("AB", names, runs, verdicts, strict=True)
        ),
        _settings(*runs),
        _listed("Worse", [one for one in found if one.change == "worse"]),
        _listed("Better", [one for one in found if one.change == "better"]),
        _listed("Otherwise different", [one for one in found if one.change == "other"]),
        "" if found else "All checks and controls have the same result.",
        _times(*(_phases(run, verdict, stage) for run, verdict in zip(runs, verdicts, strict=True)))
        if _ground(runs[0]) == _ground(runs[1])
        else f"Times: not compared: {_ground(runs[0])} against {_ground(runs[1])}.",
    ]
    text = printable("\n\n".join(part for part in parts if part))
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _ground(run: Run) -> str:
    """What must be the same for times to be compared at all: accelerator, lane, words, load."""
    setting = run.trials[0].setting if run.trials else None
    if setting is None:
        return "nothing"
    load = f", load {setting.load}" if setting.load else ""
    append = f", append {' '.join(setting.append)}" if setting.append else ""
    machine = f"{words}, " if (words := machine_words(setting)) else ""
    return f"{machine}{setting.host.accelerator}, {setting.lane} lane{append}{load}"


def _settings(before: Run, after: Run) -> str:
    """What was different about the runs themselves, in a table."""
    old, new = _described(before), _described(after)
    rows = [[key, old.get(key, "-"), new[key]] for key in new if old.get(key, "-") != new[key]]
    if not rows:
        return "Same kernels, host, options and program."
    return tabulate(rows, headers=["differs", "A", "B"], maxcolwidths=[14, 25, 25])


def _described(run: Run) -> dict[str, str]:
    described = {"program": f"{run.tool}, {run.commit}", "trials": str(len(run.trials))}
    if not run.trials:
        return described
    setting, host = run.trials[0].setting, run.trials[0].setting.host
    for side, kernel in (("outgoing", setting.outgoing), ("incoming", setting.incoming)):
        described[side] = (
            f"{kernel.release}, build id {kernel.build_id[:12]}, config"
            f" {kernel.config}, {kernel.source}, {len(kernel.patches)} patches"
        )
    described["host"] = f"{host.cpu}, {host.cpus} CPUs, {host.memory_mib} MiB; {host.system}"
    described["machine"] = machine_words(setting) or DEFAULT.title
    described["accelerator"] = host.accelerator
    described["lane"] = setting.lane
    described["append"] = " ".join(setting.append)
    described["load"] = str(setting.load)
    described["tools"] = ", ".join(f"{name} {version}" for name, version in host.versions.items())
    described["options"] = ", ".join(f"{key} {value}" for key, value in setting.options.items())
    return described


def _listed(title: str, found: Sequence[Difference]) -> str:
    lines = [
        line
        for one in found
        for line in textwrap.wrap(
            f"{one.what}: {one.text}", WIDTH, initial_indent="- ", subsequent_indent="  "
        )
    ]
    return "\n".join([title, *lines]) if lines else ""


def _phases(run: Run, verdict: Verdict, stage: Stage) -> dict[str, list[float]]:
    """Milliseconds of each phase in all main trials that passed."""
    passed = {trial.trial for trial in verdict.trials if trial.status == "PASS"}
    found: dict[str, list[float]] = {}
    for trial in run.trials:
        if trial.setting.name in passed:
            for name, ms in stage.phases(trial).items():
                found.setdefault(name, []).append(ms)
    return found


def _times(before: Mapping[str, Sequence[float]], after: Mapping[str, Sequence[float]]) -> str:
    both = [name for name in before if name in after]
    if not both:
        return "Times: none to compare, a run has no main trial that passed."
    rows, moved = [], 0
    for name in both:
        old, new = statistics.median(before[name]), statistics.median(after[name])
        intervals = median_interval(before[name]), median_interval(after[name])
        said = "?"
        if (a := intervals[0]) and (b := intervals[1]):
            said = "slower" if b[0] > a[1] else "faster" if b[1] < a[0] else "noise"
        moved += said in ("slower", "faster")
        change = f"{100 * (new - old) / old:+.0f} %" if old else ""
        rows.append([name, f"{old:.1f}", f"{new:.1f}", change, said])
    counts = [min(len(values[name]) for name in both) for values in (before, after)]
    headers = ["phase, median (ms)", f"A (n={counts[0]})", f"B (n={counts[1]})", "change", ""]
    table = tabulate(
        rows, headers=headers, disable_numparse=True, colalign=("left", *["right"] * 4)
    )
    return f"Times\n{table}\n\n{textwrap.fill(_about_noise(counts, moved, len(both)), WIDTH)}"


def _about_noise(counts: Sequence[int], moved: int, phases: int) -> str:
    if min(counts) < NEEDED:
        return (
            f"Noise: not measurable with {counts[0]} and {counts[1]} trials, so no change above"
            f" is shown to be real. Run both with --repeat {NEEDED} or more (20 is better)."
        )
    return (
        f"Noise: {moved} of {phases} phases moved by more than it: the intervals in which the"
        f" medians lie with {CONFIDENCE:.0%} confidence do not overlap. By chance alone, less than"
        " one phase in a hundred does so. Runs on a host with other load differ by that load."
    )
