# SPDX-License-Identifier: GPL-2.0-only
"""The soak verb: every trial, round after round, next to a load; how often each came out right."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.cli.kernel_options import chosen_kernels
from common.cli.options import run_options
from common.cli.run import told_runnable
from common.errors import HarnessError, UsageError
from common.host.facts import checkout_commit
from common.host.processes.load import busy
from common.machine.hypervisor import Hypervisor
from common.run.options import RunOptions
from common.run.setup import RunSetup, TrialPlan, plan_trials, setup_of
from common.run.stage_run import StageRun
from common.stage.append import check
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import all_stages, load_stage, stage_workloads
from common.stage.on_architecture import not_there
from common.suites.soak.rounds import Judged, RunOne, go_on, judged
from common.suites.soak.state import Chosen, Soak, State, exit_of, opened, report, stored

INTERRUPTED = 128 + signal.SIGINT
PlanOf = dict[tuple[str, str], TrialPlan]
"""By stage label and trial name, in the order of a round."""


def soak(arguments: argparse.Namespace) -> int:
    """Rounds, until there were enough or Ctrl-C; then the table, on stdout."""
    choice = chosen_kernels(arguments)
    stages = [configured(stage, choice=choice) for stage in _stages(arguments, choice.arch)]
    check(arguments.append, stages)
    asked = _asked(arguments, choice, stages)
    name = _name(arguments, asked)
    if arguments.table:
        return _told(stored(name))
    wanted = State(
        chosen=asked,
        trials=(),
        commit=checkout_commit(),
        begun=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    with opened(name, fresh=arguments.fresh) as store:
        store.check(wanted)
        try:
            with Hypervisor(arguments.connect) as hypervisor:
                plans = _plans(stages, controls=asked.controls)
                setups = _setups(stages, plans, choice, run_options(arguments), hypervisor)
                plans = _telling(plans, setups)
                kernels = {label: _keys(setup) for label, setup in setups.items()}
                store.begin(wanted.model_copy(update={"kernels": kernels, "trials": tuple(plans)}))
                hypervisor.cleanup.remove_folder(store.running)
                run_one = _runner(setups, plans)
                with busy(arguments.load, hypervisor.cleanup):
                    go_on(store, run_one, rounds=arguments.rounds, hours=arguments.hours)
        except KeyboardInterrupt:
            _say_where(store)
            if store.state:
                _told(store)
            return INTERRUPTED
        except HarnessError:
            if store.results:
                _told(store)
            raise
        return _told(store)


def _stages(arguments: argparse.Namespace, arch: Architecture) -> list[Stage]:
    """What was named, with each of its workloads. Raises UsageError for what there is not."""
    if arguments.stage is None:
        found = [stage for stage in all_stages() if not not_there(stage, arch)]
    else:
        numbers = sorted(set(arguments.stage))
        own = [load_stage(number) for number in numbers]  # raises for a number there is not
        workloads = [(s.number, w) for s in own for w in stage_workloads(s.number)]
        found = [load_stage(n, w) for n, w in workloads]
        found = [s for s in found if not not_there(s, arch)] or found
    kept = [stage for stage in found if arguments.workload in (None, stage.workload)]
    if not kept:
        raise UsageError(f"no stage of these has a workload {arguments.workload!r}")
    return kept


def _asked(arguments: argparse.Namespace, choice: KernelChoice, stages: Sequence[Stage]) -> Chosen:
    options = {option for stage in stages for option in stage.options}
    others = {o.flag: getattr(arguments, o.parameter) for o in options}
    others |= {"--accel": None if arguments.accel == "auto" else arguments.accel}
    others |= {"--append": " ".join(arguments.append) or None}
    others |= {"--arch": None if choice.arch is DEFAULT else choice.arch.name}
    others |= {"--cpu": arguments.cpu}
    others |= {"kernels": None if choice == KernelChoice(arch=choice.arch) else choice}
    return Chosen(
        stages=tuple(stage.label for stage in stages),
        controls=not arguments.no_controls,
        load=arguments.load,
        others={key: str(value) for key, value in others.items() if value is not None},
    )


def _name(arguments: argparse.Namespace, asked: Chosen) -> str:
    """The soak's name: the one given, else the same for the same options.

    Raises UsageError for one that is no name of a folder.
    """
    if given := arguments.name:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", given):
            raise UsageError(f"--name {given!r} cannot name a folder: give letters, digits, . _ -")
        return str(given)
    words = [f"stage-{n}" for n in sorted(set(arguments.stage or ()))] or ["all"]
    words += [arguments.workload] if arguments.workload else []
    words += [] if asked.controls else ["no-controls"]
    words += [f"load-{asked.load}"] if asked.load else []
    if asked.others:
        said = repr(sorted(asked.others.items()))
        words.append(hashlib.sha256(said.encode()).hexdigest()[:6])
    return "-".join(words)


def _plans(stages: Sequence[Stage], *, controls: bool) -> PlanOf:
    """A round."""
    return {
        (stage.label, plan.name): plan
        for stage in stages
        for plan in plan_trials(controls=told_runnable(stage) if controls else ())
    }


def _setups(
    stages: Sequence[Stage],
    plans: PlanOf,
    choice: KernelChoice,
    options: RunOptions,
    hypervisor: Hypervisor,
) -> dict[str, RunSetup]:
    """By stage label: all kernels are built before the first trial."""
    return {
        stage.label: setup_of(
            stage,
            [
                plan.control
                for (label, _), plan in plans.items()
                if label == stage.label and plan.control
            ],
            choice,
            options,
            hypervisor,
        )
        for stage in stages
    }


def _telling(plans: PlanOf, setups: Mapping[str, RunSetup]) -> PlanOf:
    """Without the controls of stages whose kernels do not promise all that is asked for, as in a
    run: what a control breaks cannot be told apart where the main run is broken already."""
    gaps = {label: gap for label, setup in setups.items() if (gap := setup.gap())}
    kept = {key: plan for key, plan in plans.items() if not plan.control or key[0] not in gaps}
    for label, gap in gaps.items():
        if left_out := sum(key[0] == label for key in plans.keys() - kept.keys()):
            print(f"{label}: {gap.what}: its {left_out} controls are left out", file=sys.stderr)
    return kept


def _keys(setup: RunSetup) -> str:
    return f"{setup.kernels.outgoing.key} {setup.kernels.incoming.key}"


def _runner(setups: Mapping[str, RunSetup], plans: PlanOf) -> RunOne:
    def run_one(label: str, trial: str, folder: Path) -> Judged:
        setup = replace(setups[label], folder=folder)
        plan = plans[label, trial]
        run = StageRun(setup, [plan])
        run.mains()
        record = run.controls()
        return judged(record, setup.stage)

    return run_one


def _say_where(store: Soak) -> None:
    if store.state is None:
        print("kexec-stages: interrupted before the first trial", file=sys.stderr)
        return
    number, stage, trial = store.next_trial()
    print(
        f"kexec-stages: interrupted in round {number} at {stage} {trial}; the same command goes on"
        " with that trial",
        file=sys.stderr,
    )


def _told(store: Soak) -> int:
    sys.stdout.write(report(store))
    return exit_of(store.results)
