# SPDX-License-Identifier: GPL-2.0-only
"""The gate verb: the stages in order, or the kernel's own live update tests, as KTAP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from common.arch.known import DEFAULT
from common.cli.kernel_options import chosen_kernels
from common.cli.options import known_splats, run_options
from common.cli.run import told_runnable
from common.cli.stored import git_identity
from common.errors import Exit, StagesError, UsageError
from common.host.accel import probe
from common.judge.known_splats import Judged, KnownSplat, judge_with, unmatched
from common.judge.stored_run import opened
from common.judge.verdict import EXIT_OF, RunStatus, Verdict
from common.machine.hypervisor import Hypervisor
from common.report import ktap
from common.report.comparison import worsened
from common.report.mail.envelope import Envelope, reply_mail
from common.report.mail.quoted import read_mail
from common.run.setup import plan_trials
from common.run.stage_run import execute_run, final_name, run_folder
from common.run.workers import Work, Workers, workers
from common.stage.append import check
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import all_stages, load_stage, stage_folders
from common.stage.on_architecture import not_there
from common.stage.series_folder import given_series
from common.suites import each_patch
from common.suites.each_patch import Step
from common.suites.mailed.base import check_base
from common.suites.mailed.mailbox import Series, read_series
from common.suites.mailed.review import of_error, of_stage, of_steps, review_json
from common.suites.upstream.build import SUITES
from common.suites.upstream.ktap import suite_result
from common.suites.upstream.run import run_suites


def gate(arguments: argparse.Namespace) -> int:
    """Stages in order up to --until, stopping at the first that falls; KTAP on stdout."""
    if arguments.upstream:
        if arguments.append or arguments.splats:
            option = "--append" if arguments.append else "--splats"
            raise UsageError(f"{option} is for the stages' kernels, not for --upstream")
        return gate_upstream(arguments)
    stages = _chosen(arguments)
    choice = chosen_kernels(arguments)
    check(arguments.append, stages)
    held = _Held(
        known_splats(arguments),
        _baselines(arguments.baseline, [stage.label for stage in stages]),
    )
    if arguments.from_mail:
        return gate_mail(arguments, stages, choice, held)
    if arguments.print or arguments.sender:
        raise UsageError("--print and --from go with --from-mail")
    with (
        _workers(arguments, stages, choice) as beside,
        Hypervisor(arguments.connect) as hypervisor,
    ):
        gated = _in_order(arguments, stages, choice, held, hypervisor, sys.stdout, beside)
    return gated.exit


def _workers(
    arguments: argparse.Namespace, stages: Sequence[Stage], choice: KernelChoice
) -> AbstractContextManager[Workers | None]:
    """For the controls, where they are asked for."""
    there = [stage for stage in stages if not not_there(stage, choice.arch)]
    work = Work(
        stages=[configured(stage, choice=choice) for stage in there],
        choice=choice,
        options=run_options(arguments),
        connect=arguments.connect,
    )
    return workers(arguments.jobs if arguments.controls else 1, work)


def _chosen(arguments: argparse.Namespace) -> list[Stage]:
    if arguments.until is None:
        return list(all_stages())
    if arguments.until in stage_folders():
        return [stage for stage in all_stages() if stage.number <= arguments.until]
    raise UsageError(f"there is no stage {arguments.until} to gate until")


@dataclass(frozen=True)
class _Held:
    """What the stages' verdicts are held against."""

    known: tuple[KnownSplat, ...]
    baselines: Mapping[str, Verdict]
    """By the stage's label."""


@dataclass
class _Gated:
    """What became of the stages. `error` is what kept one from running."""

    status: Exit = Exit.PASS
    error: StagesError | None = None
    seen: list[tuple[Stage, Judged, Path]] = field(default_factory=list)
    at: Stage | None = None
    """The stage that `error` is of."""
    in_date: bool = True
    """No entry of the list of splats has expired."""

    @property
    def exit(self) -> Exit:
        """Raises `error`."""
        if self.error:
            raise self.error
        return self.status if self.in_date or self.status is not Exit.PASS else Exit.FAIL


def _in_order(
    arguments: argparse.Namespace,
    stages: Sequence[Stage],
    choice: KernelChoice,
    held: _Held,
    hypervisor: Hypervisor,
    out: TextIO,
    beside: Workers | None,
) -> _Gated:
    """Run them; each result is KTAP on `out` at once."""
    known, options, found = held.known, run_options(arguments), _Gated()
    print(f"KTAP version 1\n1..{len(stages)}", file=out, flush=True)
    for position, declared in enumerate(stages, start=1):
        if found.status is not Exit.PASS or found.error:
            print(f"ok {position} {declared.label} # SKIP an earlier stage failed", file=out)
            continue
        if why := not_there(declared, choice.arch):
            print(f"ok {position} {declared.label} # SKIP {why}", file=out, flush=True)
            continue
        stage = configured(declared, choice=choice)
        plans = plan_trials(controls=told_runnable(stage) if arguments.controls else ())
        try:
            record, _verdict, folder = execute_run(
                stage, plans, choice, options, hypervisor, beside=beside
            )
        except StagesError as raised:
            found.error, found.at = raised, stage
            print(ktap.not_run(position, stage, raised), end="", file=out, flush=True)
            continue
        judged = judge_with(record, stage, known)
        verdict = judged.verdict
        found.seen.append((stage, judged, folder))
        for text in judged.told:
            print(f"# {ktap.one_line(f'{stage.label}: {text}')}", file=out)
        worse = worsened(held.baselines.get(stage.label), verdict)
        told = ktap.stage_result(position, stage, record, verdict, worse=worse)
        print(told, end="", file=out, flush=True)
        found.status = Exit.FAIL if worse and verdict.exit is Exit.PASS else verdict.exit
    if not found.error:
        found.in_date = splats_in_date(known, [judged for _, judged, _ in found.seen], out)
    return found


def gate_mail(
    arguments: argparse.Namespace, stages: Sequence[Stage], choice: KernelChoice, held: _Held
) -> int:
    """A series from its mailbox: looked through, walked patch by patch, run; what b4 reads of it,
    and the answer. One of them on stdout, all of them in a folder."""
    path = Path(arguments.from_mail).expanduser()
    series = read_series(path)
    if arguments.series != "ours" or choice.prebuilt or arguments.baseline:
        raise UsageError("--from-mail is the series, on a source: no --series, --image, --baseline")
    envelope = Envelope(sender=arguments.sender or git_identity())
    choice = replace(choice, series=given_series(str(path)))
    with (
        _workers(arguments, stages, choice) as beside,
        Hypervisor(arguments.connect) as hypervisor,
        run_folder("mail", hypervisor) as folder,
        (folder / "gate.ktap").open("w") as out,
    ):
        entries = [check_base(series, choice.outgoing.path if _is_tree(choice) else None)]
        walked = _walked(arguments, stages, choice, hypervisor)
        entries.append(of_steps(walked.steps, walked.error, len(series.subjects)))
        if walked.fell:
            gated = _Gated(error=walked.error, status=walked.exit)
            out.write("KTAP version 1\n1..1\nnot ok 1 each_patch\n")
        else:
            gated = _in_order(arguments, stages, choice, held, hypervisor, out, beside)
        out.writelines(f"# {one.tool}: {ktap.one_line(one.summary)}\n" for one in entries)
        entries += [of_stage(stage, judged.verdict) for stage, judged, _ in gated.seen]
        if gated.error and gated.at:
            entries.append(of_error(gated.at.label, gated.error))
        (folder / "review.json").write_text(review_json(entries))
        _write_reply(folder, [run for _, _, run in gated.seen], envelope, series)
    folder = final_name(folder)
    told = folder / _PRINTED[arguments.print or "ktap"]
    if told.exists():
        sys.stdout.write(told.read_text())
    print(f"{', '.join(sorted(p.name for p in folder.iterdir()))}: {folder}", file=sys.stderr)
    return gated.exit


_PRINTED = {"ktap": "gate.ktap", "json": "review.json", "reply": "reply.mail"}


def _is_tree(choice: KernelChoice) -> bool:
    return choice.outgoing.kind == "tree"


@dataclass
class _Walked:
    """The patches that were walked over; `error` is what ended it."""

    steps: list[Step] = field(default_factory=list)
    error: StagesError | None = None

    @property
    def fell(self) -> bool:
        return self.error is not None or any(step.fell for step in self.steps)

    @property
    def exit(self) -> Exit:
        fallen = [step.verdict.exit or Exit.FAIL for step in self.steps if step.fell]
        return fallen[0] if fallen else Exit.PASS


def _walked(
    arguments: argparse.Namespace,
    stages: Sequence[Stage],
    choice: KernelChoice,
    hypervisor: Hypervisor,
) -> _Walked:
    """Up to the first that does not build without a warning, or does not update live."""
    found = _Walked()
    stage = configured(load_stage(max(stage.number for stage in stages)), choice=choice)
    try:
        for step in each_patch.steps(stage, choice, run_options(arguments), hypervisor):
            found.steps.append(step)
            if step.fell:
                break
    except StagesError as error:
        found.error = error
    return found


def _write_reply(folder: Path, runs: Sequence[Path], envelope: Envelope, series: Series) -> None:
    """None where there is no run that could answer anything."""
    if not runs:
        return
    with ExitStack() as stack:
        stored = [stack.enter_context(opened(str(run))) for run in runs]
        mail = reply_mail(stored, envelope, read_mail(series.answered))
    (folder / "reply.mail").write_bytes(mail)


def splats_in_date(
    known: Sequence[KnownSplat], seen: Sequence[Judged], out: TextIO | None = None
) -> bool:
    """Whether no entry has expired; says which have, and which matched nothing.

    An entry past its date is a failure even where it matches nothing: nobody looks at it else.
    """
    for text in unmatched(known, seen):
        print(f"# {ktap.one_line(f'splats: {text}')}", file=out)
    expired = dict.fromkeys(entry for judged in seen for entry in judged.expired)
    for entry in expired:
        print(f"# {ktap.one_line(f'splats: EXPIRED, the gate fails: {entry}')}", file=out)
    return not expired


def _baselines(names: Sequence[str], labels: Sequence[str]) -> dict[str, Verdict]:
    """The verdicts to hold the stages against. Raises UsageError for one that cannot be used."""
    found: dict[str, Verdict] = {}
    for name in names:
        with opened(name) as stored:
            if stored.stage.label not in labels:
                raise UsageError(
                    f"baseline {name} is of stage {stored.run.stage}, which is not run"
                )
            found[stored.stage.label] = stored.verdict
    return found


def gate_upstream(arguments: argparse.Namespace) -> int:
    """The kernel's own live update tests; a skip or a missing option is never a pass."""
    if arguments.until is not None or arguments.baseline or arguments.controls:
        raise UsageError("gate --upstream runs no stage: no --until, --baseline or --controls")
    choice = chosen_kernels(arguments)
    if choice.prebuilt:
        raise UsageError("gate --upstream builds kernels and tests from one tree: no --image")
    if choice.arch is not DEFAULT:
        raise UsageError(f"gate --upstream works only on {DEFAULT.title}")
    statuses: set[str] = set()
    with (
        Hypervisor(arguments.connect) as hypervisor,
        run_folder("upstream", hypervisor) as folder,
    ):
        suites = run_suites(choice, hypervisor, probe(wanted=arguments.accel), folder)
        print(f"KTAP version 1\n1..{len(SUITES)}", flush=True)
        for position, (suite, found) in enumerate(suites, start=1):
            statuses |= {"SKIP"} if isinstance(found, StagesError) else {r.status for r in found}
            print(suite_result(position, suite, found), end="", flush=True)
    print(f"Consoles: {final_name(folder)}", file=sys.stderr)
    ranked: tuple[RunStatus, ...] = ("CRASHED", "TIMEOUT", "FAIL", "SKIP", "PASS")
    return EXIT_OF[next(status for status in ranked if status in statuses)]
