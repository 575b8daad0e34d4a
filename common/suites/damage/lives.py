# SPDX-License-Identifier: GPL-2.0-only
"""A machine stopped at its first kernel's kexec, which continues from there again and again.

At "Starting new kernel" everything is serialised, and nothing of it is read before the next kernel
begins: what the host changes there is what that kernel finds. Each life begins at the same
instruction, in the same RAM.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import HarnessError
from common.host.accel import Accelerator
from common.machine.domain import MachineSpec
from common.machine.hypervisor import Hypervisor
from common.machine.machine import KernelDied, Machine, MachineGone, MachineSilent
from common.machine.ram import PAGE, MachineRam
from common.machine.snapshot import Snapshot, image_args, make_image
from common.record import dialogue
from common.record.cpus.samples import FILE as CPU_SAMPLES
from common.record.cpus.samples import CpuWitness
from common.record.dialogue import awaited
from common.record.raw import TRACE
from common.record.stored_file import read_stamped
from common.run.initramfs import build_workload, nested
from common.run.kernels import Kernels
from common.run.post_mortem.death_watch import DeathWatch, layout_of_kernel
from common.run.trial import own_words
from common.stage.declaration import Stage
from common.suites.damage.device import DeviceWitness
from common.suites.damage.points import GUEST, Change, Point
from common.suites.damage.record import (
    POINT,
    Changed,
    DeviceSeen,
    Ended,
    FileSeen,
    HandedOver,
    Life,
)
from common.suites.damage.walk import Handover, Memfd, find_root, walk
from kernel.image.prebuilt import Bootable

PROGRAM = "damage_workload"
# Words before the console is up, of a kernel that dies there. And things lie in the same place from
# machine to machine, as far as that can be: where an address has changed, it decides what is hit.
_WORDS = ("earlycon=uart8250,io,0x3f8,115200n8", "nokaslr")
_JUMP = "kexec_core: Starting new kernel"
_JUMP_SECONDS = 30.0
# An emulated CPU boots in 2 s; the rest is for a host that is busy.
_SILENCE_SECONDS, _LIFE_SECONDS = 40.0, 240.0
_LOW = 2 << 30
# A few frames now and then, of which none waits for a reader.
_OPTIONS = {"ring": 2048, "rate": 50}


class TooLate(HarnessError):
    """The next kernel had begun when the machine was stopped; another machine may be in time."""


@dataclass(frozen=True)
class Bench:
    """What the machines of one sweep have in common."""

    stage: Stage
    kernels: Kernels
    accelerator: Accelerator
    hypervisor: Hypervisor
    on_line: Callable[[str], None] = lambda _line: None


class Standing:
    """A machine at the jump, and what is handed over there."""

    def __init__(self, bench: Bench, machine: Machine, ram: MachineRam) -> None:
        self._bench, self._machine, self.ram = bench, machine, ram
        said = _said_by(machine)
        root = find_root(ram.view[: min(ram.end, _LOW)], ram.read)
        self.handover: Handover = walk(ram.read, root)
        self._own = _own_pages(said)
        files = {_key(memfd): self._digest(memfd) for memfd in self.handover.memfds}
        self._device = self._device_witness(said)
        self._handed_over = HandedOver(
            files=files,
            properties={_key(memfd): memfd.properties for memfd in self.handover.memfds},
            devices=self.handover.devices,
            kernel=_kernel_of(bench, machine, ram),
        )
        self._snapshot = Snapshot(machine)

    def _digest(self, memfd: Memfd) -> FileSeen:
        """Of the pages that no device writes to."""
        own = memfd.frames[: self._own.get(_key(memfd))]
        return FileSeen(pages=len(memfd.frames), sha256=self.ram.sha256([(pfn, 1) for pfn in own]))

    def _device_witness(self, said: dict[str, str]) -> DeviceWitness | None:
        if not self.handover.devices:
            return None
        theirs = frozenset(
            pfn
            for memfd in self.handover.memfds
            if (own := self._own.get(_key(memfd)))
            for pfn in memfd.frames[own:]
        )
        nonce = int(said["nonce"], 16)
        return DeviceWitness(self.ram, self._machine.spec.devices, nonce, theirs)

    def live(self, point: Point, folder: Path) -> None:
        """One life with that damage; its record is left in `folder`, which is new.

        Raises HarnessError where RAM does not hold what the damage is to change.
        """
        folder.mkdir(parents=True)
        machine = self._machine
        self._snapshot.set_back()
        begun, marks = time.monotonic_ns(), self._lengths()
        change_ram(self.ram, point)
        looks = _Looks(self.ram, self.handover.memfds, self._own, self._device)
        watch = _Watch(self._bench, machine, self.ram, folder)
        machine.watch = watch
        machine.go_on()
        ended, detail = _converse(machine, looks, watch, self._bench)
        if ended != "gone":
            looks.at("end")
            machine.stop()
            machine.begin_again()  # nothing of it is on its way any more
        self._cut_out(marks, folder)
        life = Life(
            point=point.name,
            changed=tuple(
                Changed(address=c.address, before=c.before.hex(), after=c.after.hex())
                for c in point.changes
            ),
            handed_over=self._handed_over,
            clock_offset_ns=time.time_ns() - time.monotonic_ns(),
            begun=begun,
            ended_at=time.monotonic_ns(),
            ended=ended,
            detail=detail,
            looks=looks.found,
            device=looks.device,
        )
        samples = folder / CPU_SAMPLES
        if samples.exists() and not samples.stat().st_size:
            samples.unlink()
        part = folder / f"{POINT}.part"
        part.write_text(life.model_dump_json(indent=1) + "\n")
        part.rename(folder / POINT)
        if ended == "gone":
            raise HarnessError(f"QEMU has ended: {detail} (its console: {machine.folder})")

    def _lengths(self) -> dict[str, int]:
        names = ("console.jsonl", "dialogue.jsonl", TRACE)
        return {name: (self._machine.folder / name).stat().st_size for name in names}

    def _cut_out(self, marks: dict[str, int], folder: Path) -> None:
        """The lines of this life alone."""
        for name, mark in marks.items():
            with (self._machine.folder / name).open("rb") as file:
                file.seek(mark)
                (folder / name).write_bytes(file.read())


class _Watch(DeathWatch):
    """Looks at a kernel that says nothing; a machine that was reset is dead at once."""

    def __init__(self, bench: Bench, machine: Machine, ram: MachineRam, folder: Path) -> None:
        kernels = (bench.kernels.outgoing, bench.kernels.incoming)
        super().__init__(machine, ram, kernels, folder)
        self.was_reset = False
        self.on_line("# kexec")

    def reset(self) -> str:
        """The life is over."""
        super().reset()
        self.was_reset = True
        return "the machine was reset"


class _Looks:
    """At each rendezvous: the pages that the workload says that its files consist of, the device.

    `own` is how many pages of a file, by session.token, no device writes to, where one does.
    """

    def __init__(
        self,
        ram: MachineRam,
        memfds: tuple[Memfd, ...],
        own: dict[str, int],
        device: DeviceWitness | None,
    ) -> None:
        self._ram, self._own, self._witness = ram, own, device
        self._before = {_key(memfd): memfd.frames for memfd in memfds}
        self._told: dict[str, dict[str, list[int]]] = {}
        self.found: dict[str, dict[str, FileSeen | None]] = {}
        self.device: dict[str, DeviceSeen] = {}

    def on_line(self, text: str) -> None:
        if text.startswith("# frames."):
            name, _, value = text.removeprefix("# frames.").partition("=")
            when, session, token, _piece = name.split(".")
            frames = self._told.setdefault(when, {}).setdefault(f"{session}.{token}", [])
            for part in value.split(","):
                pfn, _, count = part.partition(":")
                frames += range(int(pfn), int(pfn) + int(count))
        elif at := awaited(text):
            self.at(at)

    def at(self, when: str) -> None:
        told = self._told.get(when, {})
        if told:
            self.found[when] = {key: self._look(key, frames) for key, frames in told.items()}
        if self._witness:
            self.device[when] = self._witness.look()

    def _look(self, key: str, frames: list[int]) -> FileSeen | None:
        before = self._before.get(key, ())
        moved = sum(a != b for a, b in zip(before, frames, strict=False))
        try:
            digest = self._ram.sha256([(pfn, 1) for pfn in frames[: self._own.get(key)]])
        except ValueError:
            return None  # no RAM: there is nothing to be seen
        return FileSeen(pages=len(frames), sha256=digest, moved=moved)


def _converse(machine: Machine, looks: _Looks, watch: _Watch, bench: Bench) -> tuple[Ended, str]:
    patience = bench.stage.config.patience
    deadline = machine.deadline(_LIFE_SECONDS * patience)
    try:
        while True:
            text = machine.next_line(silence=_SILENCE_SECONDS * patience, deadline=deadline)
            bench.on_line(text)
            looks.on_line(text)
            if name := awaited(text):
                if name == "end":
                    return "done", ""
                machine.answer(name)
            elif text == "# done":
                return "done", ""
            elif text.startswith("# bail "):
                return "bail", text.removeprefix("# bail ")
    except KernelDied as error:
        return ("reset" if watch.was_reset else "died"), str(error)
    except MachineSilent as error:
        watch.timeout()
        return "silent", str(error)
    except MachineGone as error:
        return "gone", str(error)


@contextmanager
def standing(bench: Bench, folder: Path) -> Iterator[Standing]:
    """A machine that has come to the jump; all that it leaves goes to `folder`, which is new.

    Raises TooLate, and HarnessError where it does not come there.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        workspace = stack.enter_context(bench.hypervisor.workspace(f"damage-{_token()}"))
        image = workspace / "snapshots.qcow2"
        make_image(image)
        spec = _spec(bench, workspace, image)
        machine = stack.enter_context(Machine(spec, hypervisor=bench.hypervisor, folder=folder))
        ram = stack.enter_context(MachineRam(machine.process.pid))
        _go_to_the_jump(machine, bench)
        try:
            there = Standing(bench, machine, ram)
        except ValueError as error:
            raise HarnessError(f"what is handed over cannot be found: {error}") from error
        yield there


def _spec(bench: Bench, workspace: Path, image: Path) -> MachineSpec:
    stage, kernels = bench.stage, bench.kernels
    words = [*own_words(stage, bench.accelerator, (kernels.outgoing, kernels.incoming)), *_WORDS]
    options = {o.parameter: _OPTIONS.get(o.parameter, o.default) for o in stage.options}
    words += [f"stage.{name}={value}" for name, value in options.items()]
    if bench.accelerator.name == "tcg":
        words.append("stage.stale_text=avoid")
    words.append(f"stage.nonce={secrets.token_hex(8)}")
    program = build_workload(stage.folder / PROGRAM, headers=kernels.outgoing.headers)
    initrd = nested(
        {"/init": program},
        [kernels.incoming],
        gen_init_cpio=kernels.outgoing.gen_init_cpio,
        workspace=workspace,
    )
    return MachineSpec(
        name=f"stages-{workspace.name}",
        memory_mib=stage.size(options).machine_mib,
        cpus=1,
        accelerator=bench.accelerator,
        kernel=kernels.outgoing.image,
        initrd=initrd,
        cmdline=" ".join(words),
        devices=stage.devices(options),
        qemu_args=(*stage.qemu_args, *image_args(image)),
        traces=stage.traces,
    )


def _go_to_the_jump(machine: Machine, bench: Bench) -> None:
    jumps, patience = threading.Event(), bench.stage.config.patience
    machine.on_console = lambda text: jumps.set() if _JUMP in text else None
    try:
        deadline = machine.deadline(_LIFE_SECONDS * patience)
        while True:
            text = machine.next_line(silence=_SILENCE_SECONDS * patience, deadline=deadline)
            bench.on_line(text)
            if text == "# kexec":
                break
            if text.startswith("# bail ") or text == "# done":
                raise HarnessError(f"the outgoing kernel's workload could not go on: {text}")
            if name := awaited(text):
                machine.answer(name)
    except (KernelDied, MachineSilent, MachineGone) as error:
        raise HarnessError(f"the outgoing kernel did not reach its kexec: {error}") from error
    if not jumps.wait(_JUMP_SECONDS):
        raise HarnessError(f"the outgoing kernel never said {_JUMP!r}")
    machine.stop()
    machine.on_console = None


def _kernel_of(bench: Bench, machine: Machine, ram: MachineRam) -> str:
    """The build id of the kernel that the CPU is in: the outgoing one, or none on its way out.

    Raises TooLate where it is the incoming one: that may have read what is to be changed.
    """
    pair: tuple[Bootable, ...] = (bench.kernels.outgoing, bench.kernels.incoming)
    layouts = [layout for kernel in pair if (layout := layout_of_kernel(kernel))]
    sample = CpuWitness(machine, ram, layouts, machine.folder).look("jump")
    if sample.shows(bench.kernels.incoming.build_id):
        raise TooLate("the machine was stopped too late: its CPU is in the incoming kernel")
    outgoing = bench.kernels.outgoing.build_id
    return outgoing if sample.shows(outgoing) else ""


def _said_by(machine: Machine) -> dict[str, str]:
    """The outgoing side's facts."""
    (side,) = dialogue.parse(read_stamped(machine.folder / "dialogue.jsonl"))
    return dict(side.facts)


def _own_pages(said: dict[str, str]) -> dict[str, int]:
    """By session.token, of a file that a device writes to: the pages before these."""
    key, _, pages = said.get("device.memory", "").partition(":")
    return {key: int(pages)} if pages else {}


def _key(memfd: Memfd) -> str:
    return f"{memfd.session}.{memfd.token}"


def _token() -> str:
    return secrets.token_hex(4)


def change_ram(ram: MachineRam, point: Point) -> None:
    """Write the damage. Raises HarnessError where it was made for other bytes than stand there."""
    for change in point.changes:
        there = ram.read(change.address, len(change.before))
        if there != change.before:
            raise HarnessError(
                f"{point.name}: {there.hex()} stands at {change.address:#x}, "
                f"where {change.before.hex()} was to be changed"
            )
        ram.write(change.address, change.after)


def guest_byte(handover: Handover, ram: MachineRam) -> Point:
    """The control: a byte of the first file's content, which no kernel can notice."""
    address = handover.memfds[0].frames[0] * PAGE + 100
    before = ram.read(address, 1)
    return Point(GUEST, (Change(address, before, bytes((before[0] ^ 1,))),))
