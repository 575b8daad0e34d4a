# SPDX-License-Identifier: GPL-2.0-only
"""Verbs on stored or declared things: no machine, no QEMU, no libvirt."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from email.headerregistry import Address
from pathlib import Path

from tabulate import tabulate

from common.arch.known import ARCHITECTURES
from common.cli.options import known_splats
from common.errors import Exit, UsageError
from common.judge.bundle import pack
from common.judge.known_splats import unmatched
from common.judge.stored_run import StoredRun, opened
from common.record import evidence as record
from common.record.evidence import Run
from common.report import ktap
from common.report.charts.timeline import timeline_svg
from common.report.comparison import comparison, worsened
from common.report.json import report_json
from common.report.json import schema_text as report_json_schema
from common.report.junit import report_junit
from common.report.kcidb import ORIGIN, report_kcidb
from common.report.mail.envelope import Envelope, reply_mail, report_mail
from common.report.mail.quoted import MOST_BYTES, read_mail
from common.report.state import report_state
from common.report.testgrid import report_testgrid
from common.report.text import report_text
from common.stage.declaration import Stage
from common.stage.kernel_choice import default_origin, origin_of, series_of
from common.stage.loading import all_stages
from common.stage.on_architecture import not_there, on_architecture
from common.text import printable


def report(arguments: argparse.Namespace) -> int:
    """Print or write the report of stored runs."""
    with ExitStack() as stack:
        known = known_splats(arguments)
        opens = (stack.enter_context(opened(name, known)) for name in arguments.run)
        runs = list({one.seal: one for one in opens}.values())  # a run given twice is one run
        # whatever the format: nothing that a run holds is to steer who reads the report
        if arguments.format == "testgrid":
            files = {n: printable(text) for n, text in report_testgrid(runs).items()}
            _write_folder(arguments.output, files)
            return Exit.PASS
        data = printable(_RENDERED[arguments.format](runs, arguments)).encode()
    if arguments.output:
        _write_whole(arguments.output, data)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return Exit.PASS


def _text(runs: Sequence[StoredRun], _arguments: argparse.Namespace) -> str:
    return "\n\n".join(report_text(one.run, one.verdict, one.stage) for one in runs)


def _html(runs: Sequence[StoredRun], _arguments: argparse.Namespace) -> str:
    from common.report.html import report_html  # jinja2 is slow to import; only a page needs it

    return report_html(runs)


def _mail(runs: Sequence[StoredRun], arguments: argparse.Namespace) -> str:
    return report_mail(runs, _envelope(arguments), full=arguments.full).decode()


def _reply(runs: Sequence[StoredRun], arguments: argparse.Namespace) -> str:
    if path := arguments.reply_to_file:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    else:
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    given = [_given_answer(text) for text in arguments.answer]
    return reply_mail(runs, _envelope(arguments), read_mail(data), given).decode()


def _given_answer(text: str) -> tuple[str, str]:
    words, equals, check = text.rpartition("=")
    if not equals or not words.strip() or not check.strip():
        raise UsageError(f"--answer: {text!r} is not WORDS=CHECK")
    return words, check.strip()


def _envelope(arguments: argparse.Namespace) -> Envelope:
    return Envelope(
        sender=arguments.sender or git_identity(),
        to=tuple(arguments.to),
        cc=tuple(arguments.cc),
        in_reply_to=arguments.in_reply_to,
    )


def git_identity() -> str:
    """NAME <ADDRESS> of git's configuration, whose send-email is to send the mail."""
    with suppress(OSError):
        done = [
            subprocess.run(
                ["git", "config", key], capture_output=True, text=True, check=False
            ).stdout.strip()
            for key in ("user.name", "user.email")
        ]
        if done[1]:
            return str(Address(done[0], addr_spec=done[1]))
    raise UsageError("the mail has no sender: git config user.email is not set; give --from")


def _ktap(runs: Sequence[StoredRun], _arguments: argparse.Namespace) -> str:
    results = [
        ktap.stage_result(position, one.stage, one.run, one.verdict)
        for position, one in enumerate(runs, start=1)
    ]
    return "".join([f"KTAP version 1\n1..{len(runs)}\n", *results])


def _state(runs: Sequence[StoredRun], arguments: argparse.Namespace) -> str:
    try:
        about = arguments.about.read_text(encoding="utf-8") if arguments.about else "# State"
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--about {arguments.about}: {error}") from None
    return report_state(runs, about)


def _svg(runs: Sequence[StoredRun], _arguments: argparse.Namespace) -> str:
    if len(runs) != 1:
        raise UsageError(f"an SVG shows one run, not {len(runs)}")
    return _picture(runs[0].run, runs[0].stage)


def _picture(run: Run, stage: Stage) -> str:
    """The timeline of the first main trial. Raises UsageError when none paused a guest for the
    kexec, or reached its end."""
    for trial in run.trials:
        if trial.setting.control is None and (phases := stage.blackout(trial)):
            host = trial.setting.host
            title = f"Stage {stage.number}: the blackout, {host.accelerator} on {host.cpu}"
            return timeline_svg(phases, title=title)
    raise UsageError(
        "no main trial of this run paused a guest and resumed it after the kexec: nothing to draw"
    )


def _write_folder(target: Path | None, files: Mapping[str, str]) -> None:
    """Write a folder that is never half there. Raises UsageError where it cannot be written."""
    if target is None:
        raise UsageError("--format testgrid writes a folder: name it with --output")
    if target.exists():
        raise UsageError(f"--output {target}: it already exists")
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for name, text in files.items():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_whole(target: Path, data: bytes) -> None:
    """Write a file that is never half there; a pipe or device is written as it stands."""
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            file.write(data)
        return
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


_RENDERED: dict[str, Callable[[Sequence[StoredRun], argparse.Namespace], str]] = {
    "text": _text,
    "mail": _mail,
    "reply": _reply,
    "html": _html,
    "json": lambda runs, _arguments: report_json(runs),
    "junit": lambda runs, _arguments: report_junit(runs),
    "kcidb": lambda runs, arguments: report_kcidb(runs, origin=arguments.origin or ORIGIN),
    "ktap": _ktap,
    "state": _state,
    "svg": _svg,
}


def judge(arguments: argparse.Namespace) -> int:
    """Judge a run or a bundle again, from its raw files; the exit status is the verdict's."""
    known = known_splats(arguments)
    with opened(arguments.run, known) as stored:
        if arguments.seal and arguments.seal.lower() != stored.seal:
            raise UsageError(f"{stored.name} is another run: its seal is {stored.seal}")
        verdict = stored.vouched
        print(printable(f"stage {verdict.stage}: {verdict.status}: {verdict.why}"))
        ran = {control.control for control in verdict.controls}
        if lacking := [c.name for c in stored.stage.controls if c.name not in ran]:
            print(f"controls that were not run: {', '.join(lacking)}")
        for text in (*stored.judged.told, *unmatched(known, [stored.judged])):
            print(printable(f"splats: {text}"))
        print(f"seal {stored.seal}")
    return verdict.exit


def compare(arguments: argparse.Namespace) -> int:
    """Print what changed from one run of a stage to another; 1 when anything got worse."""
    with opened(arguments.before) as before, opened(arguments.after) as after:
        if before.stage.label != after.stage.label:
            raise UsageError(
                f"{before.name} is of {before.stage.label} and {after.name} of"
                f" {after.stage.label}: there is nothing to compare"
            )
        names, runs = (before.name, after.name), (before.run, after.run)
        verdicts = (before.verdict, after.verdict)
        sys.stdout.write(comparison(names, runs, verdicts, after.stage))
    return Exit.FAIL if worsened(*verdicts) else Exit.PASS


def bundle(arguments: argparse.Namespace) -> int:
    """Write a run as one file; prints its name, its digest, and the run's seal."""
    with opened(arguments.run) as stored:
        data = pack(stored.folder)
        target = arguments.output or Path(f"{stored.name}.zip")
        _write_whole(target, data)
        print(f"{target}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
        print(f"seal {stored.seal}")
    return Exit.PASS


def list_stages(arguments: argparse.Namespace) -> int:
    """Print what the stages claim, what they do not, and their controls."""
    if arguments.schema:
        text = {"record": record.schema_text, "report": report_json_schema}[arguments.schema]()
        sys.stdout.write(text)
        return Exit.PASS
    if arguments.promises:
        from common.suites.promises import promises  # kernels and mutants: judge needs neither

        sys.stdout.write(promises())
        return Exit.PASS
    if arguments.promised is not None:
        from common.suites.promised import promised  # so is this

        named = arguments.promised
        origin = origin_of(named) if named else default_origin()
        print(promised(origin, series_of(arguments.series)), end="")
        return Exit.PASS
    arch = ARCHITECTURES[arguments.arch]
    for declared in all_stages():
        print(f"Stage {declared.number}: {declared.title}\n")
        if why := not_there(declared, arch):
            print(f"{why}\n")
            continue
        stage = on_architecture(declared, arch)
        rows = [
            [f"{n}. {claim.text}" if check is claim.checks[0] else "", check.name, check.question]
            for n, claim in enumerate(stage.claims, start=1)
            for check in claim.checks
        ]
        print(tabulate(rows, headers=["claim", "check", "question"], maxcolwidths=[44, None, 44]))
        controls = [[c.name, c.what, ", ".join(sorted(c.breaks))] for c in stage.controls]
        print(
            "\n"
            + tabulate(
                controls,
                headers=["control", "what it does", "must break"],
                maxcolwidths=[None, 50, 30],
            )
        )
        print("\nNot claimed:\n" + "\n".join(f"- {text}" for text in stage.not_claimed) + "\n")
    return Exit.PASS
