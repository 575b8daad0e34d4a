# SPDX-License-Identifier: GPL-2.0-only
"""The body of a report to the lists: plain text, 72 columns, fields in a fixed order.

What reviewers ask of an evidence report, in the order in which they look for it. Nothing is
invented: what the record does not hold is "not recorded", and no tag is written for anybody.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from common import __version__
from common.host.processes.precedence import IN_WORDS as PREFERRED
from common.judge.stored_run import StoredRun
from common.record.evidence import Trial
from common.record.setting import KernelFacts
from common.record.stored_file import read_stamped
from common.report.host import attempts, host_lines, load_words, machine_words
from common.report.mail.words import (
    NOT_RECORDED,
    WIDTH,
    body,
    fact,
    is_main,
    run_name,
    shell,
    shown_trial,
    worst_main,
    wrap,
)
from common.report.phase_table import phase_table
from common.report.text import controls_table
from common.stage.chain import updates
from common.stage.layouts import tried


def full_body(runs: Sequence[StoredRun]) -> str:
    """The body: each field a heading and what every run has to say to it."""
    parts = []
    for number, (title, tell) in enumerate(_fields(runs), start=1):
        told = [(run_name(one, runs), "\n".join(tell(one)).rstrip()) for one in runs]
        text = told[0][1]
        if any(other != text for _, other in told):
            text = "\n\n".join(f"[{name}]\n{said}" for name, said in told)
        elif len(runs) > 1:
            text = f"(all stages)\n{text}"
        parts.append(f"{number}. {title}\n{'-' * len(f'{number}. {title}')}\n{text}")
    return body("\n\n".join(parts))


def _verdict(one: StoredRun) -> Iterable[str]:
    verdict, main = one.verdict, shown_trial(one)
    yield from wrap(f"Stage {verdict.stage}: {one.stage.title}: {verdict.status}")
    yield from wrap(verdict.why, "  ")
    if main and is_main(main) and verdict.status == "PASS":
        found = one.stage.headline(main)
        yield from wrap("; ".join(f"{name}: {value}" for name, value in found.items()), "  ")


def _claims(one: StoredRun) -> Iterable[str]:
    for number, claim in enumerate(one.stage.claims, start=1):
        yield from wrap(claim.text, f"{number}. ", "   ")
    yield from wrap(f"Limit: {one.stage.not_claimed[0]} (All limits: “{_LIMITS}”.)")


def _kernels(one: StoredRun) -> Iterable[str]:
    main = shown_trial(one)
    if main is None:
        return [NOT_RECORDED]
    setting = main.setting
    lines = [f"lane    {setting.lane}", "series  Message-ID not recorded"]
    lines += wrap(_patches(setting.outgoing, setting.incoming), "        ")
    lines += wrap(tried(one.run.trials), "layouts ", " " * 8)
    if setting.append:
        lines += wrap(" ".join(setting.append), "append  ", " " * 8)
    for label, kernel in (("from", setting.outgoing), ("to", setting.incoming)):
        lines += wrap(f"{kernel.release} ({kernel.source})", f"{label:<8}", " " * 8)
        config = kernel.config_sha256 or "unknown"
        lines += [f"        build id {kernel.build_id}", f"config  {config}"]
    said = [f"KHO: exec from: {h.release} (count {h.count})" for h in main.console.handovers]
    lines += wrap("; ".join(said) or "no KHO line on the console", "kexec   ", " " * 8)
    return lines


def _patches(outgoing: KernelFacts, incoming: KernelFacts) -> str:
    if outgoing.patches != incoming.patches:
        return f"from: {len(outgoing.patches)} patches, to: {len(incoming.patches)} patches"
    if not outgoing.patches:
        return "no patch applied"
    return f"{len(outgoing.patches)} patches, the same on both sides: {', '.join(outgoing.patches)}"


def _host(one: StoredRun) -> Iterable[str]:
    main = shown_trial(one)
    if main is None:
        return [NOT_RECORDED]
    host = main.setting.host
    text = (
        f"{host.cpu}, {host.cpus} CPUs, {host.memory_mib} MiB; {host.system}, Linux {host.kernel}"
    )
    return [
        *wrap(text, "host    ", " " * 8),
        *(wrap(words, "machine ", " " * 8) if (words := machine_words(main.setting)) else []),
        *(wrap(words, "load    ", " " * 8) if (words := load_words(one.run)) else []),
        *wrap(f"{host.accelerator} ({host.accelerator_reason})", "accel   ", " " * 8),
        *(wrap(PREFERRED, "prio    ", " " * 8) if host.preferred else []),
        *wrap(", ".join(f"{k} {v}" for k, v in host.versions.items()), "tools   ", " " * 8),
        *(line for text in attempts(one.verdict) for line in wrap(text)),
        *(line for text in host_lines(main) for line in wrap(text)),
        f"argv of {main.setting.name} (for a shell; words go on over the line's end)",
        *shell(main.setting.argv),
    ]


def _command_lines(one: StoredRun) -> Iterable[str]:
    main = shown_trial(one)
    if main is None:
        return [NOT_RECORDED]
    lines: list[str] = []
    for name in ("outgoing", "incoming"):
        side = main.side(name)
        text = fact(side, "kernel.cmdline")
        lines += wrap(text, f"{name} ", " " * 9)
        taint = [fact(side, key) for key in ("kernel.taint", "kernel.taint_at_end")]
        lines.append(f"{'':9}taint {taint[0]} at the start, {taint[1]} at the end")
    return lines


def _checks(one: StoredRun) -> Iterable[str]:
    trial = worst_main(one)
    if trial is None:
        yield "no main run"
        return
    yield f"{trial.trial}: {trial.status} (* marks what did not pass)"
    for claim_number, claim in enumerate(one.stage.claims, start=1):
        for check in claim.checks:
            outcome = next(a.outcome for a in trial.answers if a.check == check.name)
            mark = "ok " if outcome.held else "* not ok" if outcome.fell else outcome.status
            yield f"{mark} {claim_number} {check.name}"
            if outcome.expected == outcome.seen:
                yield from wrap(outcome.seen, "    as expected  ", " " * 17)
            else:
                yield from wrap(outcome.expected, "    expected     ", " " * 17)
                yield from wrap(outcome.seen, "    observed     ", " " * 17)
            yield from wrap(outcome.evidence, "    evidence     ", " " * 17)
    yield ""
    yield f"files of {trial.trial}, SHA-256 (the first 32 of 64 digits)"
    for name, digest in one.sums.items():
        if name.startswith(f"{trial.trial}/"):
            yield f"{digest[:32]}  {name}"
    yield "seal: SHA-256 of SHA256SUMS, which has every file of the run"
    yield one.seal


def _controls(one: StoredRun) -> Iterable[str]:
    if one.verdict.controls:
        yield "each must fail, for the intended reason, and only in the checks it targets"
        yield controls_table(one.verdict.controls, width=WIDTH)
    ran = {control.control for control in one.verdict.controls}
    lacking = [control.name for control in one.stage.controls if control.name not in ran]
    if lacking:
        yield from wrap(", ".join(lacking), "not run: ", " " * 9)


def _sizes(one: StoredRun) -> Iterable[str]:
    main = shown_trial(one)
    if main is None:
        return [NOT_RECORDED]
    before, after = main.side("outgoing"), main.side("incoming")
    facts = before.facts if before else {}
    files = [m[1] for key in facts if (m := re.fullmatch(r"preserve\.(\w+)\.us", key))]
    said = "\n".join(_console(one, main))
    rows = [
        ("preserved bytes", f"{fact(after, 'ram.size')} (guest RAM)"),
        ("guest pages", fact(before, "guest.pages")),
        ("extents", f"{fact(before, 'pfn.extents')} of contiguous physical pages"),
        ("folios", NOT_RECORDED),
        ("files", f"{len(files)}: {', '.join(files)}" if files else NOT_RECORDED),
        ("sessions", "1" if fact(after, "retrieve.session") == "0" else NOT_RECORDED),
        ("KHO scratch", _each(re.findall(r"KHO: scratch areas: (.*)", said))),
        ("CMA", _each(re.findall(r"(\w+) cma-reserved", said))),
        ("kB free before", fact(before, "mem.available_kb.before_preserve")),
        ("kB free preserved", fact(before, "mem.available_kb.preserved")),
        ("options", ", ".join(f"{k} {v}" for k, v in main.setting.options.items()) or "none"),
    ]
    return [line for name, text in rows for line in wrap(text, f"{name:<18}", " " * 18)]


def _each(values: Sequence[str]) -> str:
    """One value where all kernels say the same, else all of them."""
    return ", then ".join(values if len(set(values)) > 1 else values[:1]) or NOT_RECORDED


def _timing(one: StoredRun) -> Iterable[str]:
    passed = {trial.trial for trial in one.verdict.trials if trial.status == "PASS"}
    trials = [t for t in one.run.trials if t.setting.name in passed]
    phases = [one.stage.phases(u) for t in trials for u in updates(t)]
    if not phases:
        return ["no main run that passed"]
    accelerator = one.run.trials[0].setting.host.accelerator
    side = next(trial for trial in one.run.trials if trial.setting.name in passed).side("outgoing")
    note = "an emulated CPU: compare with TCG only" if accelerator == "tcg" else "a real CPU"
    return [
        *wrap(f"{accelerator}, {note}. No outlier is left out."),
        *wrap(
            f"Clock over the kexec: the machine's {one.stage.arch.counter}, which runs through it"
            f" ({fact(side, 'tsc.khz')} kHz); the host's CLOCK_MONOTONIC where it says host."
        ),
        "",
        phase_table(phases),
    ]


def _of_stage(title: str) -> Callable[[StoredRun], Iterable[str]]:
    """The field of that title, which only some stages have; see Section."""

    def tell(one: StoredRun) -> Iterable[str]:
        main = shown_trial(one)
        section = next((found for found in one.stage.sections if found.title == title), None)
        if section is None or main is None:
            return ["none: not of this stage, or no trial came so far"]
        rows = section.rows(main, _console(one, main))
        named = (wrap(text, f"{name:<13}" if name else "", " " * 13) for name, text in rows)
        return [line for lines in named for line in lines] or ["none"]

    return tell


def _warnings(one: StoredRun) -> Iterable[str]:
    main = shown_trial(one)
    if main is None:
        return [NOT_RECORDED]
    lines: list[str] = []
    if main.console.splats:
        first = main.console.splats[0].number
        lines.append(f"console.log of {main.setting.name}, ten lines from line {first}:")
        for number, text in enumerate(_console(one, main)[first - 1 : first + 9]):
            lines += wrap(text, "   " if number else ">> ", "   ")
    if main.setting.ended_detail:
        lines += wrap(main.setting.ended_detail, ">> ", "   ")
    if not lines:
        lines = [f"none on {main.console.lines} console lines of {main.setting.name}"]
    logs = [n for n in one.sums if n.endswith("console.log") and n.startswith(main.setting.name)]
    return [*lines, *(f"{one.sums[name][:32]}  {name}" for name in logs)]


def _limits(one: StoredRun) -> Iterable[str]:
    for sentence in one.stage.not_claimed:
        yield from wrap(sentence, "- ", "  ")
    if len(one.verdict.trials) == 1:
        yield "- One main run: how often it would fail is not shown."


def _reproduce(one: StoredRun) -> Iterable[str]:
    yield from shell(["./kexec-stages", *one.run.command])
    yield from wrap(
        ", ".join(f"{t.setting.name} {t.setting.nonce}" for t in one.run.trials if is_main(t)),
        "nonce (drawn anew each time): ",
        "  ",
    )
    yield f"run id: {one.name}"
    yield "judged again from its raw files, without QEMU, by:"
    yield from shell(["./kexec-stages", "judge", "BUNDLE", "--seal", one.seal])


def _made_by(one: StoredRun) -> Iterable[str]:
    yield from wrap(
        f"Run by {one.run.tool}, commit {one.run.commit}, {one.run.started}; this text was made"
        f" from its record by kexec-stages {__version__}, a program. No person has vouched for it."
    )
    yield "If you ran it and stand by it, this tag is yours to write:"
    yield "# Tested-by: NAME <ADDRESS>"


def _console(one: StoredRun, trial: Trial) -> list[str]:
    """The console's messages, without printk's time stamps, from the raw file."""
    path = one.folder / trial.setting.name / "console.jsonl"
    return [re.sub(r"^\[ *\d+\.\d+\] ", "", line.text) for line in read_stamped(path)]


Field = tuple[str, Callable[[StoredRun], Iterable[str]]]
_LIMITS = "Not claimed, not tested"


def _fields(runs: Sequence[StoredRun]) -> tuple[Field, ...]:
    """Title and teller of each field, in their order."""
    titles = dict.fromkeys(section.title for one in runs for section in one.stage.sections)
    return (*_BEFORE, *((title, _of_stage(title)) for title in titles), *_AFTER)


_BEFORE: tuple[Field, ...] = (
    ("Result", _verdict),
    ("Claims and their limit", _claims),
    ("Kernels", _kernels),
    ("Host", _host),
    ("Kernel command lines and taint", _command_lines),
    ("Checks", _checks),
    ("Controls", _controls),
    ("Sizes", _sizes),
    ("Timing", _timing),
)
_AFTER: tuple[Field, ...] = (
    ("Warnings", _warnings),
    (_LIMITS, _limits),
    ("Reproduce", _reproduce),
    ("Who made this", _made_by),
)
