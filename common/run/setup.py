# SPDX-License-Identifier: GPL-2.0-only
"""What the trials of a run share: kernels built, numbers chosen; and which trials those are."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.arch.architecture import Architecture
from common.checks.model import Control
from common.checks.promise import Gap
from common.errors import CannotRunHere, UsageError
from common.host.accel import Accelerator, probe
from common.host.facts import available_memory_mib
from common.host.tsc import watch_tsc
from common.machine.hypervisor import Hypervisor
from common.record.qemu import jit
from common.run.guest_image import GuestImage, check_guest
from common.run.kernels import Kernels, kernels_of
from common.run.options import RunOptions
from common.stage.declaration import Option, Stage
from common.stage.kernel_choice import KernelChoice
from kernel.image.prebuilt import Bootable, offers_of


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """Everything the trials of one run share."""

    stage: Stage
    kernels: Kernels
    accelerator: Accelerator
    hypervisor: Hypervisor
    options: Mapping[str, int]
    folder: Path
    on_progress: Callable[[str], None] = field(default=lambda _text: None)
    nonce: Callable[[str], str] = field(default=lambda _name: secrets.token_hex(8))
    """The nonce of the trial of that name."""
    cpu: str | None = None
    """The emulated CPU; None: the architecture's first."""
    guest_image: GuestImage | None = None
    """The user's own guest, instead of ours."""
    load: int = 0
    """Busy processes beside the trials."""
    jobs: int = 1
    """Trials that are run at once."""
    append: tuple[str, ...] = ()
    """The user's words on both kernels' command lines."""
    stale_text: Literal["avoid", "keep"] = "avoid"
    """Whether the incoming kernel stays off the outgoing one's text, under TCG."""
    jit_words: tuple[str, ...] = jit.WORDS
    """The words of the workload at which TCG is asked for its counters."""

    def pair(self, control: Control | None) -> tuple[Bootable, Bootable]:
        """The (outgoing, incoming) kernel of a trial."""
        if control and control.own_kernels:
            return self.kernels.controls[control.name]
        outgoing = self.kernels.outgoing
        return outgoing, outgoing if control and control.same_kernel else self.kernels.incoming

    def gap(self) -> Gap | None:
        """What the kernels of a main run do not promise, of what the stage asks for."""
        kernels = [(offers_of(kernel), bool(kernel.patches)) for kernel in self.pair(None)]
        return self.stage.gap(str(self.stage.config.series), kernels)


@dataclass(frozen=True)
class TrialPlan:
    """A trial to be run; `attempt` counts from 1, where those before it were disturbed."""

    name: str
    control: Control | None = None
    attempt: int = 1

    @property
    def folder(self) -> str:
        """Where it leaves what it finds, in the run's folder."""
        return self.name if self.attempt == 1 else f"{self.name}-attempt-{self.attempt}"


def setup_of(
    stage: Stage,
    controls: Sequence[Control],
    choice: KernelChoice,
    chosen: RunOptions,
    hypervisor: Hypervisor,
) -> RunSetup:
    """What the trials of the stage and of those controls share, kernels built; no run's folder."""
    if stage.arch.counter_parameter:
        watch_tsc()  # by the time its frequency is asked for, it was watched for long enough
    options = options_of(stage, chosen.numbers)
    check_size(stage, options)
    if chosen.guest_image:
        check_guest(chosen.guest_image, stage.guest, options)
    return RunSetup(
        stage=stage,
        kernels=kernels_of(stage, choice, controls=controls),
        accelerator=probe(stage.arch, wanted=chosen.accelerator),
        hypervisor=hypervisor,
        options=options,
        folder=hypervisor.folder,
        cpu=chosen_cpu(stage.arch, chosen.cpu),
        guest_image=chosen.guest_image,
        load=chosen.load,
        append=chosen.append,
    )


def chosen_cpu(arch: Architecture, name: str | None) -> str | None:
    """That name. Raises UsageError for a CPU that the architecture has not."""
    known = [cpu.name for cpu in arch.cpus]
    if name is not None and name not in known:
        raise UsageError(f"--cpu {name}: for {arch.title} there is {', '.join(known)}")
    return name


def options_of(stage: Stage, numbers: Mapping[str, int]) -> dict[str, int]:
    """Option's parameter -> number: what the user chose, else the stage's default.

    Raises UsageError: the parser has one range for a flag of all stages, a stage its own.
    """
    return {o.parameter: _number(o, numbers.get(o.parameter)) for o in stage.options}


def _number(option: Option, value: int | None) -> int:
    if value is None:
        return option.default
    if not option.minimum <= value <= option.maximum:
        raise UsageError(
            f"{option.flag} {value}: here it must be from {option.minimum} to {option.maximum}"
        )
    return value


def plan_trials(*, repeat: int = 1, controls: Sequence[Control] = ()) -> tuple[TrialPlan, ...]:
    """The main run (or its repeats) and then the controls."""
    mains = (
        [TrialPlan("main")]
        if repeat == 1
        else [TrialPlan(f"repeat-{n:02}") for n in range(1, repeat + 1)]
    )
    return (*mains, *(TrialPlan(f"control-{control.name}", control) for control in controls))


def updates_in(stage: Stage, control: Control | None) -> int:
    """How many updates a trial has: a control is of one, unless it is of the chain itself."""
    return stage.config.chain if control is None or control.of_chain else 1


def following(setup: RunSetup, control: Control | None) -> list[Bootable]:
    """The kernels after the first: incoming and outgoing in turn."""
    outgoing, incoming = setup.pair(control)
    turns = [incoming, outgoing] * updates_in(setup.stage, control)
    return [outgoing] * (control.uncounted if control else 0) + turns[
        : updates_in(setup.stage, control)
    ]


def check_size(stage: Stage, options: Mapping[str, int]) -> None:
    """Refuse, with the sum, a request that this host's memory cannot carry.

    And one whose QEMU is not to be had: before anything is built for it.
    """
    if stage.inner_qemu:
        stage.inner_qemu()
    size = stage.size(options)
    reserve = 512
    have = available_memory_mib()
    if size.machine_mib + reserve > have:
        raise CannotRunHere(
            f"the machine would need {size.machine_mib} MiB ({size.sum}) and the host {reserve} MiB"
            f" beside it, but {have} MiB are available; ask for less with --guest-memory"
        )
