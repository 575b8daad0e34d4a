# SPDX-License-Identifier: GPL-2.0-only
"""The report as one page that needs nothing else: no network, no second file. Pure.

common/report/report.html.j2 is the page; here stands what it is told.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common import __version__
from common.host.processes.precedence import IN_WORDS as PREFERRED
from common.judge.stored_run import StoredRun
from common.record.console import strip_prefix
from common.record.evidence import Trial
from common.record.setting import KernelFacts
from common.record.stored_file import read_stamped
from common.report.charts.slices import draw, panel
from common.report.host import attempts, host_lines, load_words, machine_words
from common.report.phase_table import HEADERS, phase_rows
from common.stage.chain import updates
from common.stage.layouts import tried
from common.text import printable


@dataclass(frozen=True)
class Bar:
    """A phase of the blackout; `left` and `width` in per cent of it."""

    name: str
    ms: float
    left: float
    width: float
    proof: bool


@dataclass(frozen=True)
class LogLine:
    """A line of a console; `seconds` from the trial's first, `bad` for a splat."""

    number: int
    seconds: float
    text: str
    bad: bool


@dataclass(frozen=True)
class Log:
    """The console of a trial, cut where the second kernel's first line stands."""

    trial: str
    title: str
    sides: tuple[tuple[str, tuple[LogLine, ...]], ...]


def report_html(runs: Sequence[StoredRun]) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2")
    text = page.render(runs=[_told(one) for one in runs], version=__version__)
    return printable(text) + "\n"


def _told(one: StoredRun) -> dict[str, Any]:
    main = one.run.trial(one.verdict.trials[0].trial) if one.verdict.trials else None
    worst = next((t for t in one.verdict.trials if t.status != "PASS"), None)
    shown = worst or next(iter(one.verdict.trials), None)
    passed = {trial.trial for trial in one.verdict.trials if trial.status == "PASS"}
    trials = {trial.setting.name: trial for trial in one.run.trials}
    bad = [c.trial for c in one.verdict.controls if not c.good]
    controls = [trial for trial in one.run.trials if trial.setting.control]
    shown_pictures, other_pictures = _pictures(one, main, controls)
    logs = [name for name in (shown.trial if shown else None, *bad) if name is not None]
    return {
        "one": one,
        "shown": shown,
        "answers": {a.check: a.outcome for a in shown.answers} if shown else {},
        "breakers": _breakers(one),
        "lacking": _lacking(one),
        "figures": _figures(one, trials.get(shown.trial) if shown else None),
        "bars": _bars(one.stage.blackout(main)) if main else (),
        "blackout": sum(one.stage.blackout(main).values()) if main else 0.0,
        "headers": HEADERS,
        "rows": phase_rows(
            [one.stage.phases(u) for n in trials if n in passed for u in updates(trials[n])]
        ),
        "pictures": shown_pictures,
        "control_pictures": other_pictures,
        "setting": _setting(one, main) if main else (),
        "logs": [_log(one, trials[name]) for name in logs],
        "command": f"./kexec-stages {shlex.join(one.run.command)}",
        "what": {control.name: control.what for control in one.stage.controls},
    }


def _breakers(one: StoredRun) -> dict[str, list[str]]:
    """Check -> the controls of this run that must break it."""
    ran = {control.control for control in one.verdict.controls}
    return {
        check.name: [c.name for c in one.stage.controls if c.name in ran and check.name in c.breaks]
        for check in one.stage.checks
    }


def _lacking(one: StoredRun) -> list[str]:
    ran = {control.control for control in one.verdict.controls}
    return [control.name for control in one.stage.controls if control.name not in ran]


def _figures(one: StoredRun, shown: Trial | None) -> dict[str, str]:
    """The few numbers that a reader wants first."""
    answers = [answer for trial in one.verdict.trials for answer in trial.answers]
    good = sum(answer.outcome.held for answer in answers)
    failed = sum(control.good for control in one.verdict.controls)
    controls = len(one.verdict.controls)
    figures = {
        "checks passed": f"{good} of {len(answers)}",
        "controls that failed as expected": f"{failed} of {controls}" if controls else "none run",
    }
    if shown and one.verdict.status == "PASS":
        figures |= one.stage.headline(shown)
    if shown:
        figures["accelerator"] = shown.setting.host.accelerator
    return figures


def _bars(phases: Mapping[str, float]) -> tuple[Bar, ...]:
    total = sum(phases.values()) or 1.0
    begins = accumulate(phases.values(), initial=0.0)
    return tuple(
        Bar(name, ms, 100 * begin / total, 100 * ms / total, "(proof)" in name)
        for (name, ms), begin in zip(phases.items(), begins, strict=False)
    )


def _pictures(
    one: StoredRun, main: Trial | None, controls: Sequence[Trial]
) -> tuple[list[str], list[str]]:
    """As SVG: of the main run beside the first control in which nothing went on; of the others."""
    found = (panel(one.stage, one.folder / trial.setting.name) for trial in controls)
    panels = [shown for shown in found if shown]
    silent = next((shown for shown in panels if shown.silent), None)
    first = panel(one.stage, one.folder / main.setting.name) if main else None
    return (
        [draw([shown]) for shown in (first, silent) if shown],
        [draw([shown]) for shown in panels if shown is not silent],
    )


def _setting(one: StoredRun, main: Trial) -> list[tuple[str, str]]:
    setting, host = main.setting, main.setting.host
    said = [f"KHO: exec from: {h.release} (count {h.count})" for h in main.console.handovers]
    return [
        ("from", _kernel(setting.outgoing)),
        ("to", _kernel(setting.incoming)),
        ("kexec", "; ".join(said) or "no KHO line on the console"),
        ("lane", setting.lane),
        ("host", f"{host.cpu}, {host.cpus} CPUs, {host.memory_mib} MiB; {host.system}"),
        ("host's kernel", host.kernel),
        *([("machine", words)] if (words := machine_words(setting)) else []),
        *([("load", words)] if (words := load_words(one.run)) else []),
        ("layouts", tried(one.run.trials)),
        *([("append", " ".join(setting.append))] if setting.append else []),
        *([("priority", PREFERRED)] if host.preferred else []),
        ("host meanwhile", " ".join(host_lines(main))),
        *(("disturbed", text) for text in attempts(one.verdict)),
        ("accelerator", f"{host.accelerator} ({host.accelerator_reason})"),
        ("tools", ", ".join(f"{name} {version}" for name, version in host.versions.items())),
        ("command line", setting.cmdline),
        ("options", ", ".join(f"{k} {v}" for k, v in setting.options.items()) or "none"),
        ("QEMU", shlex.join(setting.argv)),
        ("run", one.name),
        ("by", f"{one.run.tool}, commit {one.run.commit}, {one.run.started}"),
        ("seal", one.seal),
    ]


def _kernel(kernel: KernelFacts) -> str:
    patches = f", {len(kernel.patches)} patches" if kernel.patches else ""
    return f"{kernel.release}, build id {kernel.build_id}, {kernel.source}{patches}"


def _log(one: StoredRun, trial: Trial) -> Log:
    lines = read_stamped(one.folder / trial.setting.name / "console.jsonl")
    bad = {splat.number for splat in trial.console.splats}
    start = lines[0].t if lines else 0
    found = [
        LogLine(number, (line.t - start) / 1e9, line.text, number in bad)
        for number, line in enumerate(lines, start=1)
    ]
    boots = [n for n, line in enumerate(lines) if strip_prefix(line.text)[:14] == "Linux version "]
    cut = boots[1] if len(boots) > 1 else len(found)
    names = [f"outgoing: {trial.setting.outgoing.release}", "the kernel after it"]
    if len(trial.console.boots) > 1:
        names[1] = f"incoming: {trial.console.boots[1].release}"
    sides = ((names[0], tuple(found[:cut])), (names[1], tuple(found[cut:])))
    return Log(trial.setting.name, trial.setting.ended_detail, sides)
