# SPDX-License-Identifier: GPL-2.0-only
"""The plain-text report: at most 72 columns, the same bytes from the same record. Pure."""

from __future__ import annotations

import shlex
import statistics
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from common.host.processes.precedence import IN_WORDS as PREFERRED
from common.judge.verdict import Answer, ControlVerdict, TrialVerdict, Verdict
from common.record.evidence import Run, Trial
from common.record.setting import Crash, InnerQemu, KernelFacts
from common.report.host import attempts, host_lines, load_words, machine_words
from common.report.host import phase_table as host_phases
from common.report.phase_table import phase_table
from common.stage.chain import updates
from common.stage.configured import skipped_in_words
from common.stage.declaration import Stage
from common.stage.layouts import tried
from common.text import printable

WIDTH = 72


def report_text(run: Run, verdict: Verdict, stage: Stage) -> str:
    """The whole report of one run."""
    parts = [
        _heading(verdict, stage),
        _setting(run, stage),
        *_crashes(run),
        _claims(stage, verdict),
        _controls(verdict, stage),
        _host(run, verdict),
        _timing(run, verdict, stage),
        _paragraphs("Not claimed", stage.not_claimed),
        _evidence(run),
        _reproduce(run),
    ]
    text = printable("\n\n".join(part for part in parts if part)) + "\n"
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _heading(verdict: Verdict, stage: Stage) -> str:
    title = f"Stage {stage.number}: {stage.title}"
    lines = textwrap.wrap(title, WIDTH - len(verdict.status) - 2)
    lines[-1] = lines[-1].ljust(WIDTH - len(verdict.status)) + verdict.status
    return "\n".join([*lines, "=" * WIDTH, *_wrap(verdict.why)])


def _inner(qemu: InnerQemu) -> str:
    return f"QEMU {qemu.version} in the machine, sha256 {qemu.sha256[:12]}"


def _setting(run: Run, stage: Stage) -> str:
    if not run.trials:
        return ""
    trial = run.trials[0]
    setting, host, chain = trial.setting, trial.setting.host, stage.config.chain
    taints = " -> ".join(side.facts.get("kernel.taint", "?") for side in trial.sides)
    handover = [f"KHO: exec from: {h.release} (count {h.count})" for h in trial.console.handovers]
    rows = [
        ("from", _kernel(setting.outgoing)),
        ("to", _kernel(setting.incoming)),
        *([("guest", _kernel(setting.guest))] if setting.guest else []),
        *([("guest", _files(setting.guest_image))] if setting.guest_image else []),
        *([("inner", _inner(setting.inner_qemu))] if setting.inner_qemu else []),
        ("kexec", f"{'; '.join(handover) or 'no KHO line'}; taint {taints}"),
        (
            "host",
            f"{host.cpu}, {host.cpus} CPUs, {host.memory_mib} MiB; {host.system},"
            f" Linux {host.kernel}",
        ),
        *([("machine", words)] if (words := machine_words(setting)) else []),
        *([("load", words)] if (words := load_words(run)) else []),
        ("accel", f"{host.accelerator} ({host.accelerator_reason})"),
        *([("prio", PREFERRED)] if host.preferred else []),
        ("tools", ", ".join(f"{name} {version}" for name, version in host.versions.items())),
        ("cmdline", setting.cmdline),
        ("layouts", tried(run.trials)),
        *([("append", " ".join(setting.append))] if setting.append else []),
        ("options", ", ".join(f"{k} {v}" for k, v in setting.options.items()) or "none"),
        *([("lane", setting.lane)] if setting.lane != "default" else []),
        *([("chain", f"{chain} updates in each main run")] if chain > 1 else []),
        *([("series", setting.series)] if setting.series != "ours" else []),
        ("by", f"{run.tool}, commit {run.commit}, {run.started}"),
    ]
    return "\n".join(_labelled(label, text) for label, text in rows)


def _files(digests: Mapping[str, str]) -> str:
    return ", ".join(f"{name} (sha256 {digest[:12]})" for name, digest in digests.items())


def _kernel(kernel: KernelFacts) -> str:
    patches = f", {len(kernel.patches)} patches" if kernel.patches else ""
    return (
        f"{kernel.release}, build id {kernel.build_id[:12]}, config {kernel.config},"
        f" {kernel.source}{patches}"
    )


def _crashes(run: Run) -> Iterator[str]:
    """How each kernel died that was not to: phase, what to read first, and where it was."""
    for trial in run.trials:
        crash = trial.setting.crash
        if crash and trial.setting.control is None:
            yield "\n".join(crash_lines(trial.setting.name, crash))


def crash_lines(trial: str, crash: Crash) -> Iterator[str]:
    """A crash in words; console lines are as wide as they are."""
    yield _labelled("Crash", f"{trial}: {crash.kernel} died; phase: {crash.phase}")
    yield from (f"  {line}" for line in crash.lines)
    yield _labelled("Stack", f"decoded by {crash.decoded_by}")
    yield from (f"  {line}" for line in crash.stack)


def _claims(stage: Stage, verdict: Verdict) -> str:
    shown = _worst(verdict.trials)
    if shown is None:
        return ""
    answers = {answer.check: answer for answer in shown.answers}
    lines = [f"Claims ({shown.trial}: {shown.status})"]
    for number, claim in enumerate(stage.claims, start=1):
        lines += textwrap.wrap(
            claim.text, WIDTH, initial_indent=f"{number}. ", subsequent_indent="   "
        )
        for check in claim.checks:
            lines += textwrap.wrap(
                _in_words(answers[check.name]),
                WIDTH,
                initial_indent="   ",
                subsequent_indent=" " * 10,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


_MARKS = {"PASS": "ok", "XPASS": "XPASS", "XFAIL": "xfail", "N/A": "n/a"}


def _in_words(answer: Answer) -> str:
    """What was seen, beside what was expected where that is another thing; whose promise it is
    where these kernels do not make it."""
    outcome = answer.outcome
    told = outcome.seen
    if outcome.fell or outcome.status == "XFAIL":
        told = f"expected {outcome.expected}; seen {outcome.seen}"
    whose = f" ({answer.whose})" if outcome.status in ("XFAIL", "XPASS", "N/A") else ""
    return f"{_MARKS.get(outcome.status, 'not ok'):<6} {answer.check}{whose}: {told}"


def _worst(trials: Iterable[TrialVerdict]) -> TrialVerdict | None:
    ordered = sorted(trials, key=lambda trial: trial.status == "PASS")
    return ordered[0] if ordered else None


def _controls(verdict: Verdict, stage: Stage) -> str:
    lines = ["Controls (each must fail, for the intended reason)"]
    if verdict.controls:
        lines.append(controls_table(verdict.controls, width=WIDTH))
    elif verdict.status == "XFAIL":
        lines = ["Controls"]
        lines += _wrap(
            "None were run: the main run is an expected failure, which hides what they would break."
        )
    else:
        lines = ["Controls", "None were run: that the checks can fail is not shown."]
    if stage.config.skipped_controls:
        lines += _wrap(f"Skipped: {skipped_in_words(stage)}.")
    return "\n".join(lines)


def controls_table(controls: Iterable[ControlVerdict], *, width: int) -> str:
    """Control, whether it failed as expected, and the reason it gave."""
    rows = [[c.control, "as expected" if c.good else f"{c.status} >>", c.why] for c in controls]
    widths = [20, 12, width - 38]
    return tabulate(rows, headers=["control", "failed", "seen"], maxcolwidths=widths)


def _host(run: Run, verdict: Verdict) -> str:
    """Attempts that showed nothing, and what the host did beside the trial that is shown."""
    shown = _worst(verdict.trials)
    lines = [line for text in attempts(verdict) for line in _wrap(text)]
    table = ""
    if shown is not None:
        trial = run.trial(shown.trial)
        lines += [line for text in host_lines(trial) for line in _wrap(text)]
        table = host_phases(trial)
    return "\n".join(["Host", *lines, *([table] if table else [])]) if lines else ""


def _timing(run: Run, verdict: Verdict, stage: Stage) -> str:
    passed = {trial.trial for trial in verdict.trials if trial.status == "PASS"}
    phases = [stage.phases(u) for t in run.trials if t.setting.name in passed for u in updates(t)]
    if not phases:
        return ""
    accelerator = run.trials[0].setting.host.accelerator
    note = "TCG: an emulated CPU; compare with TCG only" if accelerator == "tcg" else accelerator
    parts = [f"Timing ({note})", phase_table(phases)]
    if dropped := [n for t in run.trials if t.setting.name in passed for n in t.tb_invalidations]:
        parts += _wrap(_dropped(dropped))
    return "\n".join(parts)


def _dropped(dropped: Sequence[int]) -> str:
    """A boot that is slow because of stale translations has several times as many."""
    least, median, most = min(dropped), statistics.median(dropped), max(dropped)
    spread = f", median {median:.0f}, most {most}" if len(dropped) > 1 else ""
    return f"Translations that TCG dropped from first message to last: {least}{spread}"


def _paragraphs(title: str, sentences: Iterable[str]) -> str:
    lines = [title]
    for sentence in sentences:
        lines += textwrap.wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join(lines)


def _evidence(run: Run) -> str:
    rows = [[trial.setting.name, _seconds(trial), trial.console.lines] for trial in run.trials]
    table = tabulate(rows, headers=["trial", "seconds", "console lines"], floatfmt=".1f")
    return f"Evidence (SHA256SUMS covers every file of the run)\n{table}"


def _seconds(trial: Trial) -> float:
    return (trial.setting.ended_ns - trial.setting.started_ns) / 1e9


def _reproduce(run: Run) -> str:
    return _labelled("Reproduce ", f"./kexec-stages {shlex.join(run.command)}")


def _labelled(label: str, text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"{label:<8}",
        subsequent_indent=" " * 8,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)
