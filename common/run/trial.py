# SPDX-License-Identifier: GPL-2.0-only
"""One trial, and a run made of trials. `run_trial` is a whole live update on one screen."""

from __future__ import annotations

import datetime
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from common import __version__
from common.errors import CannotRunHere, HarnessError, UsageError
from common.host.accel import Accelerator
from common.host.facts import available_memory_mib, checkout_commit, describe_host
from common.host.qemu_image import inner_qemu
from common.judge.verdict import disturbed, judge_trial
from common.machine.domain import MachineSpec
from common.machine.hypervisor import Hypervisor
from common.machine.machine import KernelDied, Machine, MachineGone, MachineSilent
from common.machine.ram import MachineRam
from common.machine.sight import prove, prove_start
from common.paths import runs_root
from common.record.dialogue import awaited
from common.record.evidence import (
    ATTEMPTS,
    Ended,
    KernelFacts,
    Made,
    Run,
    Setting,
    Trial,
    collect,
    seal,
    sha256,
)
from common.record.qemu import jit
from common.record.qemu import trace as qemu_trace
from common.record.sources import digests
from common.record.trial_files import MADE, RECORD
from common.run.guest_image import GuestImage
from common.run.initramfs import build_workload, make_initramfs
from common.run.post_mortem.crash import crash_of
from common.run.post_mortem.death_watch import DeathWatch, layout_of_kernel
from common.run.told_clock import clock_words
from common.stage.append import behind
from common.stage.declaration import Companion, Control, Stage
from kernel.cache import Kernel
from kernel.image.prebuilt import Bootable, Prebuilt


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything the trials of one run share."""

    stage: Stage
    outgoing: Bootable
    incoming: Bootable
    accelerator: Accelerator
    hypervisor: Hypervisor
    options: Mapping[str, int]
    folder: Path
    narrate: Callable[[str], None] = field(default=lambda _text: None)
    nonce: Callable[[str], str] = field(default=lambda _name: secrets.token_hex(8))
    """The nonce of the trial of that name."""
    guest: Kernel | None = None
    """The kernel of the workload's guest, where that is a Linux."""
    guest_image: GuestImage | None = None
    """The user's own guest instead."""
    control_kernels: Mapping[str, tuple[Bootable, Bootable]] = field(default_factory=dict)
    """Outgoing and incoming kernel of controls that have their own, by name."""
    load: int = 0
    """Busy processes beside the trials."""
    append: tuple[str, ...] = ()
    """The user's words on both kernels' command lines."""
    stale_text: Literal["avoid", "keep"] = "avoid"
    """Whether the incoming kernel stays off the outgoing one's text, under TCG."""
    jit_words: tuple[str, ...] = jit.WORDS
    """The words of the workload at which TCG is asked for its counters."""

    def kernels(self, control: Control | None) -> tuple[Bootable, Bootable]:
        """The outgoing and the incoming kernel of a trial."""
        if control and control.own_kernels:
            return self.control_kernels[control.name]
        return self.outgoing, self.outgoing if control and control.same_kernel else self.incoming


@dataclass(frozen=True)
class Plan:
    """A trial to be run; `attempt` counts from 1, where those before it were disturbed."""

    name: str
    control: Control | None = None
    attempt: int = 1

    @property
    def folder(self) -> str:
        """Where it leaves what it finds, in the run's folder."""
        return self.name if self.attempt == 1 else f"{self.name}-attempt-{self.attempt}"


def plan_trials(*, repeat: int = 1, controls: Sequence[Control] = ()) -> tuple[Plan, ...]:
    """The main run (or its repeats) and then the controls."""
    mains = (
        [Plan("main")] if repeat == 1 else [Plan(f"repeat-{n:02}") for n in range(1, repeat + 1)]
    )
    return (*mains, *(Plan(f"control-{control.name}", control) for control in controls))


def run_trial(bench: Bench, plan: Plan) -> Trial:
    """One machine from a cold boot to the workload's last word; its folder is left complete."""
    stage, control = bench.stage, plan.control
    folder = bench.folder / plan.folder
    folder.mkdir()
    outgoing, incoming = bench.kernels(control)
    chain = _chain(bench.stage, control)
    nonce = bench.nonce(plan.folder)
    cmdline = " ".join(_cmdline(bench, plan, nonce))
    size = stage.size(bench.options)
    with ExitStack() as stack:
        workspace = stack.enter_context(bench.hypervisor.workspace(f"trial-{nonce}"))
        spec = MachineSpec(
            name=f"stages-{nonce}",
            memory_mib=size.machine_mib,
            cpus=stage.cpus,
            accelerator=bench.accelerator,
            kernel=outgoing.image,
            initrd=_pack(bench, outgoing, _following(bench, control), workspace),
            cmdline=cmdline,
            devices=(*stage.devices(bench.options), *_guest_disk(bench, workspace)),
            ports=stage.ports,
            qemu_args=stage.qemu_args,
            traces=(*qemu_trace.ALWAYS, *stage.traces),
        )
        machine = stack.enter_context(Machine(spec, hypervisor=bench.hypervisor, folder=folder))
        prove_start(machine)
        ram = stack.enter_context(MachineRam(machine.process.pid))
        watch = DeathWatch(
            machine.registers, ram, (outgoing, incoming), folder, stage.guest_runs_at
        )
        companion = stack.enter_context(stage.companion(machine))
        ended, detail = _converse(machine, bench, companion, watch, chain)
        setting = Setting(
            stage=stage.number,
            name=plan.folder,
            attempt=plan.attempt,
            control=control.name if control else None,
            options={name: str(value) for name, value in bench.options.items()},
            workload=stage.workload,
            lane=stage.lane,
            series=str(stage.series),
            one_kernel=stage.one_kernel,
            chain=chain,
            append=bench.append,
            load=bench.load,
            nonce=nonce,
            host=describe_host(
                bench.accelerator, bench.hypervisor.versions(), preferred=machine.preferred
            ),
            outgoing=_facts(outgoing),
            incoming=_facts(incoming),
            guest=_facts(bench.guest) if bench.guest else None,
            guest_image=bench.guest_image.facts() if bench.guest_image else None,
            inner_qemu=inner_qemu(stage.inner_qemu()) if stage.inner_qemu else None,
            cmdline=cmdline,
            argv=machine.argv,
            clock_offset_ns=machine.clock_offset_ns,
            started_ns=machine.started_ns,
            ended_ns=time.monotonic_ns(),
            ended=ended,
            ended_detail=detail,
            process_at_start=machine.process,
            process_at_end=machine.process_now(),
        )
    setting = setting.model_copy(update={"ended_ns": time.monotonic_ns()})
    if ended in ("crashed", "rebooted"):  # by now the console is whole
        crash = crash_of(detail.partition(": ")[0], folder, (outgoing, incoming))
        setting = setting.model_copy(update={"crash": crash})
    (folder / "trial.json").write_text(setting.model_dump_json(indent=2) + "\n")
    try:
        return collect(folder, witness=stage.witness)
    except UsageError as error:
        raise HarnessError(str(error)) from error  # it is no user's folder, but our own


def _converse(
    machine: Machine, bench: Bench, companion: Companion, watch: DeathWatch, chain: int
) -> tuple[Ended, str]:
    """Let the workload speak, answer its rendezvous, and say how it ended."""
    # Bounds for an emulated CPU: a quiet boot takes 2 s, touching memory about 3 s/GiB.
    gib, patience = machine.spec.memory_mib / 1024, bench.stage.patience
    deadline = machine.deadline((90 + 60 * gib) * patience * chain)
    silence = (20 + 10 * gib) * patience
    phase, left, arrived, ended = "boot of the outgoing kernel", 0, 0, False
    machine.watch = watch
    try:
        while True:
            text = machine.hear(silence=silence, deadline=deadline)
            bench.narrate(text)
            _let_hear(companion, text, machine)
            watch.heard(text)
            if bench.accelerator.name == "tcg" and text in bench.jit_words:
                machine.note_jit(text)
            if name := awaited(text):
                if name == "end" and ended:
                    return "done", ""  # not before: the line would be cut off in its middle
                phase = f"after {name!r}"
                machine.go(name)
            elif text == "# side=outgoing":
                if ended:
                    return "done", ""  # one side too many; the dialogue tells it
                if left > arrived:
                    return "rebooted", "the outgoing kernel booted a second time"
                if not left:
                    prove(machine, now=time.monotonic_ns())
                left += 1
            elif text == "# side=incoming":
                phase = "incoming kernel"
            elif text == "# kexec":
                phase = "kexec and boot of the incoming kernel"
            elif text == "# done":
                arrived += 1
                ended = arrived == chain or left > arrived
                phase = f"between updates {arrived} and {arrived + 1}"
            elif text.startswith("# bail "):
                return "bail", text.removeprefix("# bail ")
    except KernelDied as error:
        return "crashed", f"{phase}: {error}"
    except MachineSilent as error:
        machine.note_state()
        watch.timeout()
        return "timeout", f"{phase}: {error}"
    except MachineGone as error:
        machine.note_last_words()
        return "gone", f"{phase}: {error}"


def _let_hear(companion: Companion, text: str, machine: Machine) -> None:
    """Raises MachineGone where the companion failed because QEMU has ended under its hands."""
    try:
        companion.heard(text)
    except (HarnessError, OSError) as error:
        if machine.process_now() is None:
            raise MachineGone(f"QEMU has ended: {error}") from error
        raise


def _cmdline(bench: Bench, plan: Plan, nonce: str) -> tuple[str, ...]:
    # A host that does not run QEMU's timers for 60 ms is no reason to panic; Linux as a guest of
    # Hyper-V, VMware or KVM leaves that check out as well.
    # Every page is looked at when it is allocated and when it is freed, the guest's at the end of
    # the trial, too: one whose struct page was not as the allocator left it is a "Bad page state".
    ours = ("console=ttyS0", "no_timer_check", "check_pages=1", *bench.stage.cmdline)
    if bench.accelerator.name == "tcg":
        ours += clock_words(kernel.config for kernel in bench.kernels(plan.control))
    words = (*behind(ours, bench.append), f"stage.nonce={nonce}")
    for option in bench.stage.options:
        words += (f"stage.{option.parameter}={bench.options[option.parameter]}",)
    if bench.guest_image:
        words += ("stage.guest_image=1",)
    if (chain := _chain(bench.stage, plan.control)) > 1:
        words += (f"stage.chain={chain}",)
    if bench.stage.series != "ours":
        words += ("stage.series=foreign",)
    if bench.accelerator.name == "tcg":
        # Only an emulator remembers the old kernel's code; see common/workload/core/stale_text.c.
        words += (f"stage.stale_text={bench.stale_text}",)
    if plan.control:
        words = plan.control.cmdline((*words, f"stage.control={plan.control.name}"))
    return words


def _chain(stage: Stage, control: Control | None) -> int:
    """How many updates a trial has: a control is of one, unless it is of the chain itself."""
    return stage.chain if control is None or control.of_chain else 1


def _following(bench: Bench, control: Control | None) -> list[Bootable]:
    """The kernels after the first: incoming and outgoing in turn."""
    outgoing, incoming = bench.kernels(control)
    turns = [incoming, outgoing] * _chain(bench.stage, control)
    return [outgoing] * (control.uncounted if control else 0) + turns[
        : _chain(bench.stage, control)
    ]


def _pack(bench: Bench, outgoing: Bootable, following: Sequence[Bootable], workspace: Path) -> Path:
    """The first initramfs; each carries the kernel that comes next and that one's initramfs."""
    tool = outgoing.gen_init_cpio
    files = {"/init": build_workload(bench.stage.sources, headers=outgoing.headers)}
    if bench.stage.guest and bench.guest:
        program = build_workload(bench.stage.guest.sources, headers=bench.guest.headers)
        initrd = workspace / "guest.cpio"
        make_initramfs({"/init": program}, gen_init_cpio=tool, target=initrd)
        files |= {"/guest/bzImage": bench.guest.image, "/guest/initrd": initrd}
    if bench.guest_image:
        files |= bench.guest_image.initramfs_files(workspace)
    packed = make_initramfs(files, gen_init_cpio=tool, target=workspace / "last.cpio")
    for number, kernel in enumerate(reversed(following)):
        here = files | {"/incoming/bzImage": kernel.image, "/incoming/initrd": packed}
        packed = make_initramfs(here, gen_init_cpio=tool, target=workspace / f"{number}.cpio")
    return packed


def _guest_disk(bench: Bench, workspace: Path) -> tuple[ET.Element, ...]:
    return bench.guest_image.devices(workspace) if bench.guest_image else ()


def _facts(kernel: Bootable) -> KernelFacts:
    return KernelFacts(
        release=kernel.release,
        build_id=kernel.build_id,
        key=kernel.key,
        source=kernel.source,
        image_sha256=sha256(kernel.image),
        config_sha256=sha256(kernel.config) if kernel.config else None,
        patches=kernel.patches,
        prebuilt=isinstance(kernel, Prebuilt),
        layout=layout_of_kernel(kernel),
    )


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


def run_attempts(
    bench: Bench,
    plan: Plan,
    *,
    before: Callable[[Plan], None] = lambda _plan: None,
    after: Callable[[Trial], None] = lambda _trial: None,
) -> list[Trial]:
    """A trial, and as long as it is disturbed another attempt at it, up to `ATTEMPTS` in all."""
    trials: list[Trial] = []
    for attempt in range(1, ATTEMPTS + 1):
        before(plan)
        trials.append(run_trial(bench, replace(plan, attempt=attempt)))
        after(trials[-1])
        if not disturbed(trials[-1], bench.stage):
            break
    return trials


def run_stage(
    bench: Bench,
    plans: Sequence[Plan],
    *,
    before: Callable[[Plan], None],
    after: Callable[[Trial], None],
) -> Run:
    """All trials of `plans`, one after the other, as a sealed run in `bench.folder`.

    A disturbed trial is run again, up to `ATTEMPTS` times in all. No controls after a main run
    that failed for the named cause that was expected.
    """
    trials: list[Trial] = []
    made = _made(bench.stage, plans)
    (bench.folder / MADE).write_text(made.text())
    bench = replace(bench, nonce=made.nonce)
    for kernel, name in ((bench.outgoing, "outgoing"), (bench.incoming, "incoming")):
        if kernel.config:
            shutil.copyfile(kernel.config, bench.folder / f"{name}.config")
    for plan in plans:
        # What a control breaks cannot be told apart where the main run is broken already.
        if plan.control and any(_fails_as_expected(trial, bench.stage) for trial in trials):
            break
        trials += run_attempts(bench, plan, before=before, after=after)
    run = Run(**dict(made), trials=tuple(trials))
    (bench.folder / RECORD).write_text(run.text())
    seal(bench.folder)
    return run


def _made(stage: Stage, plans: Sequence[Plan]) -> Made:
    """What makes a run that begins now."""
    return Made(
        id=secrets.token_hex(8),
        stage=stage.number,
        tool=f"kexec-stages {__version__}",
        commit=checkout_commit(),
        sources=digests(),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=tuple(sys.argv[1:]),
        planned=tuple(plan.name for plan in plans),
    )


def _fails_as_expected(trial: Trial, stage: Stage) -> bool:
    return trial.setting.control is None and judge_trial(trial, stage).status == "XFAIL"


def new_run_folder(what: str, hypervisor: Hypervisor) -> Path:
    """A fresh folder for a run, named .part until `publish`; it goes if this process dies."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{stamp}-{what}-{secrets.token_hex(2)}.part"
    folder = runs_root() / name
    folder.mkdir(parents=True)
    hypervisor.guardian.remove_folder(folder)
    return folder


def publish(folder: Path) -> Path:
    """The finished run under its final name, and `latest` pointing to it."""
    final = folder.with_suffix("")
    folder.rename(final)
    latest = final.parent / "latest"
    part = final.parent / f".latest.{secrets.token_hex(4)}"
    part.symlink_to(final.name)
    part.replace(latest)
    return final
