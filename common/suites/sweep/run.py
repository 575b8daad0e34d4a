# SPDX-License-Identifier: GPL-2.0-only
"""Runs a sweep: a machine, two kernels with fault injection, a kexec between them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from common.checks.swept import KINDS, SweptCalls
from common.errors import Exit, HarnessError, UsageError
from common.host.accel import Accelerator
from common.machine import kho_tree
from common.machine.domain import MachineSpec
from common.machine.hypervisor import Hypervisor
from common.machine.machine import KernelDied, Machine, MachineGone, MachineSilent
from common.machine.ram import MachineRam
from common.paths import CHECKOUT
from common.record.dialogue import awaited
from common.record.stored_file import Count, read_rows, read_stamped
from common.run.initramfs import build_workload, nested
from common.run.kernels import kernels_of
from common.run.trial import own_words
from common.stage.configured import configured
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice
from common.suites.sweep.points import Sweep, read_sweep

SWEEP_CONFIG = CHECKOUT / "kernel" / "configs" / "sweep.config"
_PROGRAM = "sweep_workload"
_MEMORY_MIB, _CPUS = 2560, 2
# From one line of the workload to the next, for an emulated CPU under KASAN: a kernel boots and 500
# sessions are made in 30 s each.
_SECONDS = 300.0
# Without it each CPU keeps an array of objects for each cache (mm/slub.c: a sheaf). Whether a call
# needs one is chance, and one that cannot be had is done without.
_NO_SHEAVES = "slab_debug=F"
_FDT, _KHO = "# kho.fdt=", "kho-"
_KHO_FILE = "kho.jsonl"
_COUNTED = TypeAdapter(list[tuple[str, Count]])


@dataclass(frozen=True)
class Ended:
    """How a sweep's machine ended; `detail` is empty where it came to its end."""

    status: Exit
    detail: str = ""


def sweep_choice(stage: Stage, choice: KernelChoice) -> tuple[Stage, KernelChoice]:
    """The stage in the debug lane, on kernels that fail where they are told to.

    Raises UsageError for a stage without a sweep, and for kernels that are built already.
    """
    calls_of(stage)
    if choice.prebuilt:
        raise UsageError("a sweep needs kernels with kernel/configs/sweep.config: no --image")
    choice = replace(choice, config=(SWEEP_CONFIG, *choice.config))
    return configured(stage, lane="debug", choice=choice), choice


def calls_of(stage: Stage) -> SweptCalls:
    """What its sweep makes fail. Raises UsageError for a stage without one."""
    if stage.swept_calls is None:
        raise UsageError(f"stage {stage.number} has no sweep of calls")
    return stage.swept_calls


def checked_point(text: str, calls: SweptCalls) -> str:
    """A point as it was printed, CALL:KIND:N. Raises UsageError naming the calls there are."""
    match = re.fullmatch(r"([a-z_]+):([a-z]+):([1-9][0-9]{0,5})", text)
    kinds = {call.name: call.kinds for call in calls.all}
    if not match or match[2] not in kinds.get(match[1], ()):
        raise UsageError(
            f"--point {text}: give CALL:KIND:N, as {calls.names[0]}:slab:3; the calls are"
            f" {', '.join(calls.names)}, the kinds {', '.join(KINDS)}, and of reboot any"
        )
    return text


def run_sweep(
    stage: Stage,
    choice: KernelChoice,
    hypervisor: Hypervisor,
    accelerator: Accelerator,
    folder: Path,
    *,
    point: str | None = None,
    on_line: Callable[[str], None] = lambda _line: None,
) -> tuple[Sweep, Ended]:
    """All points, or one; console and dialogue are left in `folder`.

    `stage` and `choice` are those of `sweep_choice`. Raises HarnessError where QEMU ended, or what
    the workload said cannot be read.
    """
    calls, kernels = calls_of(stage), kernels_of(stage, choice)
    words = [*own_words(stage, accelerator, (kernels.outgoing, kernels.incoming))]
    words += ["printk.devkmsg=on", "log_buf_len=4M", _NO_SHEAVES, *calls.cmdline]
    if accelerator.name == "tcg":
        words.append("stage.stale_text=avoid")
    words.append(f"stage.nonce={secrets.token_hex(8)}")
    if point:
        words.append(f"stage.point={point}")
    with hypervisor.workspace(f"sweep-{secrets.token_hex(4)}") as workspace:
        program = build_workload(stage.folder / _PROGRAM, headers=kernels.outgoing.headers)
        tool = kernels.outgoing.gen_init_cpio
        following = [kernels.incoming]
        initrd = nested({"/init": program}, following, gen_init_cpio=tool, workspace=workspace)
        spec = MachineSpec(
            name=f"stages-{workspace.name}",
            memory_mib=_MEMORY_MIB,
            cpus=_CPUS,
            accelerator=accelerator,
            kernel=kernels.outgoing.image,
            initrd=initrd,
            cmdline=" ".join(words),
            devices=calls.devices(),
        )
        with (
            Machine(spec, hypervisor=hypervisor, folder=folder) as machine,
            MachineRam(machine.process.pid) as ram,
        ):
            ended = _converse(machine, _KhoCount(ram, folder), on_line)
    return read_folder(folder, calls), ended


def read_folder(folder: Path, calls: SweptCalls) -> Sweep:
    """What the raw files of a sweep of these calls show.

    Raises HarnessError for files that are damaged.
    """
    try:
        counted = folder / _KHO_FILE
        return read_sweep(
            calls,
            read_stamped(folder / "console.jsonl"),
            read_stamped(folder / "dialogue.jsonl"),
            read_rows(counted, _COUNTED) if counted.exists() else (),
        )
    except ValueError as error:
        raise HarnessError(f"{folder}: {error}") from error


class _KhoCount:
    """Pages registered with KHO, a line for each rendezvous kho-CALL-KIND-N, in `folder`."""

    def __init__(self, ram: MachineRam, folder: Path) -> None:
        self._ram = ram
        self._file = folder / _KHO_FILE
        self.root: int | None = None

    def __call__(self, rendezvous: str) -> None:
        if self.root is None or not rendezvous.startswith(_KHO):
            return
        point = rendezvous.removeprefix(_KHO).replace("-", ":")
        pages = kho_tree.pages(kho_tree.preserved(self._ram.read, self.root))
        with self._file.open("a") as file:
            file.write(json.dumps([point, pages]) + "\n")


def _converse(machine: Machine, count: _KhoCount, on_line: Callable[[str], None]) -> Ended:
    side = ""
    try:
        while True:
            # A kernel that waits for ever goes on to say so on its console.
            deadline = machine.deadline(_SECONDS)
            text = machine.next_line(silence=_SECONDS, deadline=deadline)
            on_line(text)
            if name := awaited(text):
                count(name)
                machine.answer(name)
            elif text.startswith("# side="):
                side = text.removeprefix("# side=")
            elif text.startswith("# bail "):
                return Ended(Exit.HARNESS, f"the {side} kernel's workload could not go on: {text}")
            elif text.startswith(_FDT):
                count.root = kho_tree.tree_root(bytes.fromhex(text.removeprefix(_FDT)))
            elif text == "# done" and side == "incoming":
                return Ended(Exit.PASS)
    except KernelDied as error:
        return Ended(Exit.CRASHED, f"the {side} kernel died: {error}")
    except MachineSilent as error:
        return Ended(Exit.TIMEOUT, f"the {side} kernel fell silent: {error}")
    except MachineGone as error:
        raise HarnessError(f"QEMU has ended: {error} (its console: {machine.folder})") from error
