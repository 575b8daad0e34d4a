# SPDX-License-Identifier: GPL-2.0-only
"""One run from the user's options to a judged record: what `run`, `gate` and `matrix` do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.errors import UsageError
from common.host.accel import probe
from common.host.processes.load import busy
from common.host.tsc import watch_tsc
from common.judge.verdict import Verdict, judge
from common.machine.hypervisor import Hypervisor
from common.record.evidence import Run
from common.run.guest_image import GuestImage
from common.run.kernels import control_kernels, guest_kernel, kernel_pair
from common.run.progress import Narrator
from common.run.trial import Bench, Plan, check_size, new_run_folder, publish, run_stage
from common.stage.declaration import Control, Option, Stage
from common.stage.kernel_choice import KernelChoice


def one_run(
    stage: Stage,
    plans: Sequence[Plan],
    choice: KernelChoice,
    arguments: argparse.Namespace,
    hypervisor: Hypervisor,
    guest_image: GuestImage | None = None,
) -> tuple[Run, Verdict, Path]:
    """The trials of `plans` on those kernels; `stage` is one `as_run`.

    Of `arguments` the machine's options are taken: accelerator, the stage's numbers, load.
    """
    controls = [plan.control for plan in plans if plan.control]
    bench = bench_of(stage, controls, choice, arguments, hypervisor, guest_image)
    narrator = Narrator(stage)
    folder = new_run_folder(stage.label, hypervisor)
    bench = replace(bench, folder=folder, narrate=narrator.line)
    with busy(bench.load, hypervisor.guardian):
        record = run_stage(bench, plans, before=narrator.begin, after=narrator.end)
    return record, judge(record, stage), publish(folder)


def bench_of(
    stage: Stage,
    controls: Sequence[Control],
    choice: KernelChoice,
    arguments: argparse.Namespace,
    hypervisor: Hypervisor,
    guest_image: GuestImage | None = None,
) -> Bench:
    """What the trials of the stage and of those controls share, kernels built; no run's folder."""
    watch_tsc()  # by the time its frequency is asked for, it was watched for long enough
    options = options_of(stage, arguments)
    check_size(stage, options)
    outgoing, incoming = kernel_pair(stage, choice)
    return Bench(
        stage=stage,
        outgoing=outgoing,
        incoming=incoming,
        accelerator=probe(wanted=arguments.accel),
        hypervisor=hypervisor,
        options=options,
        folder=hypervisor.folder,
        guest=guest_kernel(stage, choice),
        guest_image=guest_image,
        control_kernels=control_kernels(stage, controls, choice),
        load=arguments.load,
        append=tuple(arguments.append),
    )


def options_of(stage: Stage, arguments: argparse.Namespace) -> dict[str, int]:
    """The stage's numbers: what the user chose, else its defaults."""
    return {option.parameter: _chosen(arguments, option) for option in stage.options}


def _chosen(arguments: argparse.Namespace, option: Option) -> int:
    """Raises UsageError: the parser has one range for a flag of all stages, a stage its own."""
    value = getattr(arguments, option.parameter)
    if value is None:
        return option.default
    if not option.minimum <= value <= option.maximum:
        raise UsageError(
            f"{option.flag} {value}: here it has to be from {option.minimum} to {option.maximum}"
        )
    return int(value)
