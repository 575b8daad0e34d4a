# SPDX-License-Identifier: GPL-2.0-only
"""One trial: `run_trial` is a whole live update on one screen."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree as ET

from common.errors import HarnessError, UsageError
from common.host.accel import Accelerator
from common.host.facts import describe_host
from common.host.qemu_binary import qemu_path
from common.host.qemu_image import inner_qemu
from common.machine.domain import MachineSpec
from common.machine.helper import HostHelper
from common.machine.machine import KernelDied, Machine, MachineGone, MachineSilent
from common.machine.ram import MachineRam
from common.machine.sight import prove, prove_start
from common.record.dialogue import awaited
from common.record.evidence import Trial, collect
from common.record.qemu import trace as qemu_trace
from common.record.seal import sha256
from common.record.setting import Ended, KernelFacts, Setting
from common.run.initramfs import pack
from common.run.post_mortem.crash import crash_of
from common.run.post_mortem.death_watch import DeathWatch, layout_of_kernel
from common.run.setup import RunSetup, TrialPlan, following, updates_in
from common.run.told_clock import clock_words
from common.stage.append import behind
from common.stage.declaration import Stage
from kernel.image.prebuilt import Bootable, Prebuilt, offers_of

_HUNG_SECONDS = 10
"""Linux looks as often, so that it takes up to twice as long; `_converse` waits for longer."""


def run_trial(setup: RunSetup, plan: TrialPlan) -> Trial:
    """Run one machine from a cold boot to the workload's last message; completes its folder."""
    stage, control = setup.stage, plan.control
    folder = setup.folder / plan.folder
    folder.mkdir()
    outgoing, incoming = setup.pair(control)
    chain = updates_in(setup.stage, control)
    nonce = setup.nonce(plan.folder)
    cmdline = " ".join(_cmdline(setup, plan, nonce))
    size = stage.size(setup.options)
    with ExitStack() as stack:
        workspace = stack.enter_context(setup.hypervisor.workspace(f"trial-{nonce}"))
        spec = MachineSpec(
            name=f"stages-{nonce}",
            memory_mib=size.machine_mib,
            cpus=stage.cpus,
            arch=stage.arch,
            cpu=setup.cpu,
            emulator=qemu_path(stage.arch),
            accelerator=setup.accelerator,
            kernel=outgoing.image,
            initrd=pack(setup, outgoing, following(setup, control), workspace),
            cmdline=cmdline,
            devices=(*stage.devices(setup.options), *_guest_disk(setup, workspace)),
            ports=stage.ports,
            qemu_args=stage.qemu_args,
            traces=(*qemu_trace.ALWAYS, *stage.traces),
        )
        machine = stack.enter_context(Machine(spec, hypervisor=setup.hypervisor, folder=folder))
        ram = stack.enter_context(_seen(machine))
        watch = DeathWatch(
            machine, ram, (outgoing, incoming), folder, stage.guest_runs_at, stage.arch
        )
        helper = stack.enter_context(stage.helper(machine))
        ended, detail = _converse(machine, setup, helper, watch, chain)
        setting = Setting(
            stage=stage.number,
            name=plan.folder,
            attempt=plan.attempt,
            control=control.name if control else None,
            options={o.parameter: o.said(setup.options[o.parameter]) for o in stage.options},
            workload=stage.workload,
            lane=stage.config.lane,
            series=str(stage.config.series),
            one_kernel=stage.config.one_kernel,
            chain=chain,
            append=setup.append,
            architecture=stage.arch.name,
            cpu_model=setup.cpu,
            load=setup.load,
            jobs=setup.jobs,
            nonce=nonce,
            host=describe_host(
                setup.accelerator,
                setup.hypervisor.versions(spec.emulator),
                spec.emulator,
                preferred=machine.preferred,
            ),
            outgoing=_facts(outgoing),
            incoming=_facts(incoming),
            guest=_facts(setup.kernels.guest) if setup.kernels.guest else None,
            guest_image=_image_facts(setup),
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
    if ended in ("crashed", "rebooted"):  # the console is complete by now
        crash = crash_of(detail.partition(": ")[0], folder, (outgoing, incoming))
        setting = setting.model_copy(update={"crash": crash})
    (folder / "trial.json").write_text(setting.model_dump_json(indent=2) + "\n")
    try:
        return collect(folder, witness=stage.witness)
    except UsageError as error:
        raise HarnessError(str(error)) from error  # the folder is not the user's, but ours


def _seen(machine: Machine) -> MachineRam:
    """Its RAM, and its trace, can be seen. Raises HarnessError; with QEMU's last words where it has
    ended, before anybody could look."""
    try:
        prove_start(machine)
        return MachineRam(machine.process.pid, machine.spec.arch.ram)
    except (HarnessError, OSError) as error:
        if machine.process_now() is not None:
            raise
        raise HarnessError(f"QEMU ended as it was started: {machine.last_words()}") from error


def _converse(
    machine: Machine, setup: RunSetup, helper: HostHelper, watch: DeathWatch, chain: int
) -> tuple[Ended, str]:
    """Answer the workload's rendezvous to its end: (how it ended, why in a sentence or "")."""
    # Bounds for an emulated CPU: a quiet boot takes 2 s, touching memory about 3 s/GiB.
    gib, patience = machine.spec.memory_mib / 1024, setup.stage.config.patience
    deadline = machine.deadline((90 + setup.stage.seconds_per_gib * gib) * patience * chain)
    silence = (20 + 10 * gib) * patience
    phase, left, arrived, ended = "boot of the outgoing kernel", 0, 0, False
    machine.watch = watch
    try:
        while True:
            text = machine.next_line(silence=silence, deadline=deadline)
            setup.on_progress(text)
            _let_hear(helper, text, machine)
            watch.on_line(text)
            if setup.accelerator.name == "tcg" and text in setup.jit_words:
                machine.note_jit(text)
            if name := awaited(text):
                if name == "end" and ended:
                    return "done", ""  # not earlier: that would cut the line off
                phase = f"after {name!r}"
                machine.answer(name)
            elif text == "# side=outgoing":
                if ended:
                    return "done", ""  # one side too many; dialogue_complete fails
                if left > arrived:
                    return "rebooted", "the outgoing kernel booted a second time"
                if not left:
                    prove(machine, now=time.monotonic_ns())
                left += 1
            elif text == "# side=incoming":
                phase = "incoming kernel"
            elif text == "# kexec":
                phase = "kexec and boot of the incoming kernel"
            elif text == "# at guest-still":
                machine.note_state()
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


def _let_hear(helper: HostHelper, text: str, machine: Machine) -> None:
    """Raises MachineGone if the helper failed because QEMU has ended meanwhile."""
    try:
        helper.on_line(text)
    except (HarnessError, OSError) as error:
        if machine.process_now() is None:
            raise MachineGone(f"QEMU has ended: {error}") from error
        raise


def own_words(
    stage: Stage, accelerator: Accelerator, kernels: Iterable[Bootable]
) -> tuple[str, ...]:
    """The kernel parameters of the harness and of the stage, for these kernels."""
    # check_pages=1: each page is checked when it is allocated and when it is freed, which includes
    # the guest's at the end of the trial. A struct page that is not as the allocator left it is a
    # "Bad page state" (mm/page_alloc.c: bad_page).
    arch = stage.arch
    words = (f"console={arch.console}", *arch.cmdline, "check_pages=1", *_hung(stage))
    words += stage.cmdline
    if accelerator.name == "tcg" and arch.counter_parameter:
        words += clock_words(arch.counter_parameter, (kernel.config for kernel in kernels))
    return words


def _hung(stage: Stage) -> tuple[str, ...]:
    """Whoever waits for what nobody gives back is told, with his stack, before the machine is taken
    for silent. Once: the same again is no sign of life (kernel/hung_task.c)."""
    seconds = round(_HUNG_SECONDS * stage.config.patience)
    return (
        f"sysctl.kernel.hung_task_timeout_secs={seconds}",
        "sysctl.kernel.hung_task_warnings=1",
    )


def _cmdline(setup: RunSetup, plan: TrialPlan, nonce: str) -> tuple[str, ...]:
    ours = own_words(setup.stage, setup.accelerator, setup.pair(plan.control))
    words = (*behind(ours, setup.append), f"stage.nonce={nonce}")
    for option in setup.stage.options:
        words += (f"stage.{option.parameter}={option.said(setup.options[option.parameter])}",)
    if setup.guest_image and not setup.stage.guest:
        words += ("stage.guest_image=1",)
    if (chain := updates_in(setup.stage, plan.control)) > 1:
        words += (f"stage.chain={chain}",)
    if gap := setup.gap():
        words += (f"stage.lacks={gap.name}",)
    if setup.accelerator.name == "tcg" and setup.stage.arch.memmap:
        # Only an emulator keeps translations of the old code: common/workload/core/stale_text.c.
        words += (f"stage.stale_text={setup.stale_text}",)
    if setup.accelerator.name == "tcg" and setup.stage.arch.no_guest_on_cpu is not None:
        words += (f"stage.no_guest_on_cpu={setup.stage.arch.no_guest_on_cpu}",)
    if plan.control:
        words = plan.control.cmdline((*words, f"stage.control={plan.control.name}"))
    return words


def _guest_disk(setup: RunSetup, workspace: Path) -> tuple[ET.Element, ...]:
    return setup.guest_image.devices(workspace) if setup.guest_image else ()


def _image_facts(setup: RunSetup) -> dict[str, str] | None:
    if setup.guest_image is None:
        return None
    guest = setup.stage.guest
    return setup.guest_image.facts(guest.modules(setup.options) if guest else ())


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
        offers=offers_of(kernel),
        layout=layout_of_kernel(kernel),
    )
