# SPDX-License-Identifier: GPL-2.0-only
"""The body of a mail that people read: what came out, on what, and where the rest is.

All stages with all their controls take less than 150 lines. What did not come out as it must is
never left out for that: a check that failed, a control that passed, what was disturbed and what
was not run are all named. What the record does not hold is "not recorded". Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import shorten

from common import __version__
from common.checks.model import BRIEF, Claim
from common.judge.stored_run import StoredRun
from common.judge.verdict import Answer, TrialVerdict
from common.record.evidence import Trial
from common.record.setting import KernelFacts
from common.report.host import attempts, load_words, machine_words
from common.report.mail.series import applied_series
from common.report.mail.words import (
    NOT_RECORDED,
    WIDTH,
    body,
    run_name,
    shell,
    shown_trial,
    worst_main,
    wrap,
)
from common.stage.chain import updates
from common.stage.configured import skipped_in_words

_STATUS = 10
"""Columns of a verdict: DISTURBED and a blank."""
_FIGURES = ("blackout (guest's", "blackout (QEMU's", "gap (", "longest silence")
"""How the phases begin that this mail has; all of them are in the full one."""
_REASON = 80
"""Characters that the accelerator's reason may take, which can quote a failed QEMU."""


def brief_body(runs: Sequence[StoredRun]) -> str:
    """The body: the verdicts first, then what stands behind them."""
    parts = [
        _titled("Result", (line for one in runs for line in _result(one, runs))),
        _titled("Limits, the first of each stage's ([1, 2]: of these stages)", _limits(runs)),
        _titled("Kernels", kernels(runs)),
        _titled(
            "Claims: checks that passed, controls that broke them (*: not all passed)",
            (line for one in runs for line in _claims(one, runs)),
        ),
        _titled("Figures", _figures(runs)),
        _titled("Anomalies", _anomalies(runs)),
        _titled("Repeat", repeat(runs)),
        _titled("The rest", _rest(runs)),
    ]
    return body("\n\n".join(parts))


def _titled(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *lines])


def _each(
    runs: Sequence[StoredRun], tell: Callable[[StoredRun], str | None], first: str = ""
) -> Iterator[str]:
    """What `tell` says of the runs, once where it is the same, with the stages it is said of."""
    said = _once(runs, lambda one: [text] if (text := tell(one)) else [])
    for n, (text, whose) in enumerate(said):
        told = f"{whose} {text}" if whose else text
        yield from wrap(told, " " * len(first) if n else first, " " * (len(first) or 2))


def _once(
    runs: Sequence[StoredRun], tell: Callable[[StoredRun], Iterable[str]]
) -> Iterator[tuple[str, str]]:
    """Each text, and of which stages it is said: [1, 1 qemu, 2]; nothing where it is of all."""
    said: dict[str, list[str]] = {}
    for one in runs:
        for text in dict.fromkeys(tell(one)):
            said.setdefault(text, []).append(run_name(one, runs).removeprefix("stage "))
    for text, names in said.items():
        yield text, "" if len(names) == len(runs) else f"[{', '.join(names)}]"


def _result(one: StoredRun, runs: Sequence[StoredRun]) -> Iterator[str]:
    verdict, then = one.verdict, " " * _STATUS
    title = f"{run_name(one, runs)}: {one.stage.title}"
    yield from wrap(title, f"{verdict.status:<{_STATUS}}", then)
    if verdict.status != "PASS" or not verdict.trials:
        yield from wrap(verdict.why, then)


def _limits(runs: Sequence[StoredRun]) -> Iterator[str]:
    yield from _each(runs, lambda one: one.stage.not_claimed[0])
    if all(len(one.verdict.trials) == 1 for one in runs):
        yield "One main run each: how often it would fail is not shown."


def kernels(runs: Sequence[StoredRun]) -> Iterator[str]:
    """The pair of kernels, what they were made of, and where they ran."""
    for first, tell in (
        ("from    ", _releases),
        ("        ", _build_ids),
        ("base    ", _base),
        ("accel   ", _accelerator),
        ("host    ", _host),
        ("setting ", _setting),
    ):
        yield from _each(runs, tell, first)
    yield from _series(runs)


def _releases(one: StoredRun) -> str:
    return _on_both_sides(one, lambda kernel: kernel.release, " to ")


def _build_ids(one: StoredRun) -> str:
    return f"build ids {_on_both_sides(one, lambda kernel: kernel.build_id[:16], ' to ')}"


def _base(one: StoredRun) -> str:
    source = _on_both_sides(one, lambda kernel: kernel.source, " to ")
    return f"{source}; commit, Message-ID: {NOT_RECORDED}"


def _on_both_sides(one: StoredRun, tell: Callable[[KernelFacts], str], to: str) -> str:
    """What is told of the two kernels, once where it is the same."""
    main = shown_trial(one)
    if main is None:
        return NOT_RECORDED
    setting = main.setting
    return to.join(dict.fromkeys(map(tell, (setting.outgoing, setting.incoming))))


def _accelerator(one: StoredRun) -> str:
    main = shown_trial(one)
    if main is None:
        return NOT_RECORDED
    host, machine = main.setting.host, machine_words(main.setting).partition(":")[0]
    said = f"{host.accelerator} ({shorten(host.accelerator_reason, _REASON, placeholder=' ...')})"
    return f"{said}; {machine}" if machine else said


def _host(one: StoredRun) -> str:
    main = shown_trial(one)
    if main is None:
        return NOT_RECORDED
    host = main.setting.host
    qemu = host.versions.get("qemu", NOT_RECORDED)
    return f"{host.cpu}, {host.cpus} CPUs; Linux {host.kernel}; QEMU {qemu}"


def _setting(one: StoredRun) -> str | None:
    """What was not as it is by default; None where all was."""
    main = shown_trial(one)
    if main is None:
        return None
    setting = main.setting
    said = [
        f"{setting.lane} lane" if setting.lane != "default" else "",
        f"append {' '.join(setting.append)}" if setting.append else "",
        f"{setting.chain} updates in each machine" if setting.chain > 1 else "",
        load_words(one.run),
    ]
    return "; ".join(text for text in said if text) or None


def _series(runs: Sequence[StoredRun]) -> Iterator[str]:
    """A line for each series, with the stages whose kernels have it."""
    for n, (text, whose) in enumerate(_once(runs, _applied)):
        told = f"{text} {whose}" if whose else text
        yield from wrap(told, " " * 8 if n else "series  ", " " * 8)


def _applied(one: StoredRun) -> Iterator[str]:
    main = shown_trial(one)
    if main is None:
        yield NOT_RECORDED
        return
    setting = main.setting
    sides = {"from": setting.outgoing, "to": setting.incoming}
    same = setting.outgoing.patches == setting.incoming.patches
    for side, kernel in sides.items():
        if same and side == "to":
            return
        whose = "" if same else f"{side}: "
        for text in _of_kernel(kernel, main, one):
            yield whose + text


def _of_kernel(kernel: KernelFacts, main: Trial, one: StoredRun) -> Iterable[str]:
    if kernel.prebuilt:
        return [f"an image that was built already: patches {NOT_RECORDED}"]
    return [str(found) for found in applied_series(kernel, main.setting, one.stage)] or ["none"]


def _claims(one: StoredRun, runs: Sequence[StoredRun]) -> Iterator[str]:
    trial = worst_main(one)
    if trial is None:
        yield f"{run_name(one, runs)}: no main run"
        return
    mains, controls = one.verdict.trials, one.verdict.controls
    several = f", the worst of {len(mains)}" if len(mains) > 1 else ""
    good = sum(control.good for control in controls)
    told = f"{good}/{len(controls)} controls failed as expected" if controls else "no control run"
    yield from wrap(f"{run_name(one, runs)} ({trial.trial}{several}: {trial.status}; {told})")
    for claim in one.stage.claims:
        yield _claim(claim, trial, one)


def _claim(claim: Claim, trial: TrialVerdict, one: StoredRun) -> str:
    asked = answers_of(claim, trial)
    passed = sum(answer.outcome.held for answer in asked)
    mark = " " if passed == len(asked) else "*"
    count = f"{passed}/{len(asked)}"
    row = f"{mark} {claim.brief:<{BRIEF}} {count:>5} "
    return row + _controls_of(claim, one, WIDTH - len(row))


def answers_of(claim: Claim, trial: TrialVerdict) -> list[Answer]:
    """The answers of the claim's checks, in their order; of a chain's checks only in a chain."""
    found = {answer.check: answer for answer in trial.answers}
    return [found[check.name] for check in claim.checks if check.name in found]


def _controls_of(claim: Claim, one: StoredRun, width: int) -> str:
    """How many controls broke a check of the claim, and as many of their names as there is room.

    First those that break little else.
    """
    if not one.verdict.controls:
        return "none run"
    names = {check.name for check in claim.checks}
    good = {control.control for control in one.verdict.controls if control.good}
    mine = [c for c in one.stage.controls if c.name in good and c.breaks & names]
    if not mine:
        return "none"
    told: list[str] = []
    for control in sorted(mine, key=lambda control: len(control.breaks)):
        if len(_so_many(len(mine), [*told, control.name])) <= width:
            told.append(control.name)
    return _so_many(len(mine), told)


def _so_many(count: int, names: Sequence[str]) -> str:
    rest = ["..."] if names and len(names) < count else []
    return ": ".join([str(count), *([", ".join([*names, *rest])] if names else [])])


def _figures(runs: Sequence[StoredRun]) -> Iterator[str]:
    """Blackout and gap of the main runs that passed, and what the stage says of all main runs."""
    for one in runs:
        passed = {trial.trial for trial in one.verdict.trials if trial.status == "PASS"}
        trials = [trial for trial in one.run.trials if trial.setting.name in passed]
        found: dict[str, list[float]] = {}
        for phases in (one.stage.phases(u) for trial in trials for u in updates(trial)):
            for name, ms in phases.items():
                if name.startswith(_FIGURES):
                    found.setdefault(name, []).append(ms)
        count = len(trials)
        said = [f"{name} {_spread(values, count)}" for name, values in found.items()]
        said += _of_stage(one)
        yield from wrap(
            "; ".join(said) or NOT_RECORDED, f"{run_name(one, runs)}, n={count}: ", "  "
        )


def _spread(values: Sequence[float], usual: int) -> str:
    """Median and range; how many where that is not as with the others."""
    said = [f"{min(values):.1f} to {max(values):.1f}"] if len(values) > 1 else []
    said += [f"n={len(values)}"] if len(values) != usual else []
    told = f" ({', '.join(said)})" if said else ""
    return f"{statistics.median(values):.1f} ms{told}"


def _of_stage(one: StoredRun) -> list[str]:
    """What the stage itself has to say of all its main runs."""
    decisive = {trial.trial for trial in one.verdict.trials}
    trials = [trial for trial in one.run.trials if trial.setting.name in decisive]
    answers = [answer for trial in one.verdict.trials for answer in trial.answers]
    failed = {answer.check for answer in answers if answer.outcome.status != "PASS"}
    passed = {answer.check for answer in answers} - failed
    found = (section.line(trials, passed) for section in one.stage.sections)
    return [line for line in found if line]


def _anomalies(runs: Sequence[StoredRun]) -> Iterator[str]:
    """All that is not as it must be, whatever the length; "none" only where nothing is."""
    lines = [
        line
        for one in runs
        for text in _odd(one)
        for line in wrap(f"{run_name(one, runs)}: {text}", "- ", "  ")
    ]
    quiet = sum(
        trial.console.lines
        for one in runs
        for trial in one.run.trials
        if trial.setting.name in {main.trial for main in one.verdict.trials}
    )
    yield from lines or [f"none; no splat on {quiet} console lines of the main runs"]


def _odd(one: StoredRun) -> Iterator[str]:
    verdict = one.verdict
    for trial in verdict.trials:
        yield from _odd_trial(trial, one)
    for control in verdict.controls:
        if not control.good:
            yield f"control {control.control} {control.status}: {control.why}"
    yield from attempts(verdict)
    yield from one.judged.told
    yield from _not_run(one)


def _odd_trial(trial: TrialVerdict, one: StoredRun) -> Iterator[str]:
    record = one.run.trial(trial.trial)
    if trial.status != "PASS":
        yield f"{trial.trial} {trial.status}: {trial.why}"
    by_status: dict[str, list[str]] = {}
    for answer in trial.answers:
        if answer.outcome.status != "PASS":
            by_status.setdefault(answer.outcome.status, []).append(answer.check)
    for status, names in by_status.items():
        yield f"{trial.trial}, checks {status}: {', '.join(names)}"
    if crash := record.setting.crash:
        first = f": {crash.lines[0]}" if crash.lines else ""
        yield f"{trial.trial}: {crash.kernel} died, phase: {crash.phase}{first}"
    if splats := record.console.splats:
        more = f" (the first of {len(splats)})" if len(splats) > 1 else ""
        yield f"{trial.trial}: console.log, line {splats[0].number}: {splats[0].text}{more}"
    if trial.away:
        yield f"{trial.trial}: {trial.away}"


def _not_run(one: StoredRun) -> Iterator[str]:
    """The controls and planned trials that say nothing, because they were not run."""
    verdict, stage = one.verdict, one.stage
    ran = {control.control for control in verdict.controls}
    skipped = set(stage.config.skipped_controls)
    lacking = [c.name for c in stage.controls if c.name not in ran and c.name not in skipped]
    if skipped:
        yield f"controls skipped: {skipped_in_words(stage)}"
    if lacking and not ran:
        yield (
            f"none of its {len(lacking)} controls was run: that the checks can fail is not shown"
        )
    elif lacking:
        yield f"controls not run: {', '.join(lacking)}"
    begun = {trial.setting.plan for trial in one.run.trials}
    if missing := [name for name in one.run.planned if name not in begun]:
        yield f"planned and not run: {', '.join(missing)}"


def repeat(runs: Sequence[StoredRun]) -> Iterator[str]:
    """The commands that make such runs, and the seals that judge them again."""
    for command in dict.fromkeys(one.run.command for one in runs):
        yield from shell(["./kexec-stages", *command])
    yield "Judged again without QEMU: ./kexec-stages judge BUNDLE --seal SEAL"
    for one in runs:
        yield from wrap(f"{run_name(one, runs).removeprefix('stage '):<6} {one.seal}", "", "  ")


def _rest(runs: Sequence[StoredRun]) -> Iterator[str]:
    yield from wrap(
        "`report RUN --format mail --full`: all limits, command lines, what each check saw and why"
        " each control failed. `bundle RUN`: the raw files."
    )
    yield from _each(runs, lambda one: f"Run by {one.run.tool}, commit {one.run.commit}.")
    yield from wrap(
        f"Generated by kexec-stages {__version__}, a program, from the files of these runs; no"
        " person has vouched for it."
    )
