# SPDX-License-Identifier: GPL-2.0-only
"""How a stage declares itself: claims, the checks that show them, the controls that break them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol
from xml.etree import ElementTree as ET

from common.errors import UsageError
from common.machine.domain import MachineSpec
from common.paths import CHECKOUT
from common.record.dialogue import Stored
from common.record.evidence import Trial, Witness
from common.record.qemu.process import QemuProcess
from common.stage.series_folder import series_patches

Status = Literal["PASS", "FAIL", "NO DATA", "DISTURBED"]
"""DISTURBED: it did not hold, and the host is why; neither a failure nor a pass."""
Series = Literal["ours", "none"] | Path
"""What is applied to a kernel's source: our patches, nothing, or the patches of a folder."""


class Outcome(Stored):
    """A check's answer. `evidence` names the file or fact where a reader finds it."""

    status: Status
    expected: str
    seen: str
    evidence: str


@dataclass(frozen=True)
class Check:
    """A question to the record. `ask` is pure: the same trial gives the same outcome."""

    name: str
    question: str
    ask: Callable[[Trial], Outcome]
    of_chain: bool = False
    """Asked of a chain of updates as a whole, not of each of them."""
    timed: bool = False
    """The answer depends on bounds in time inside the machine: where the machine stood still for
    long because the host did, a failure shows nothing."""


@dataclass(frozen=True)
class Claim:
    """A sentence the stage wants believed, and the checks that show it."""

    text: str
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A run that must fail. It proves that the checks in `breaks` can.

    Each check in `breaks` must not pass, and `reason` must hold: the run failed for what was
    done to it and nothing else. Checks in `may_break` follow from it; None means that
    everything after the cause is gone, so that only `holds` is still asked for.
    """

    name: str
    what: str
    breaks: frozenset[str]
    reason: Check
    may_break: frozenset[str] | None = frozenset()
    holds: tuple[Check, ...] = ()
    cmdline: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda words: words
    same_kernel: bool = False
    without_patch: str | None = None
    """The patch of the series (its file's name, or the start of it) that both kernels lack."""
    with_patch: str | None = None
    """An injected fault: a patch in the stage's folder that both kernels have after the series."""
    with_config: str | None = None
    """A Kconfig fragment in the stage's folder, after all others."""
    incoming_only: bool = False
    """The outgoing kernel is the stage's: what is left out or added is so in the incoming one."""
    stock: bool = False
    """Both kernels without any patch."""
    of_chain: bool = False
    """Run in a chain of updates; every other control is of one update."""
    uncounted: int = 0
    """Kexecs before the first update, of which nobody is told."""

    @property
    def own_kernels(self) -> bool:
        """True when the stage's kernels will not do."""
        return self.stock or any((self.without_patch, self.with_patch, self.with_config))

    def on(self, side: str) -> Control | None:
        """The control that the kernel of that side ("out" or "in") is built for."""
        return None if self.incoming_only and side == "out" else self


@dataclass(frozen=True)
class Size:
    """What a machine needs for given options, with the sum in words."""

    machine_mib: int
    sum: str


@dataclass(frozen=True, kw_only=True)
class Option:
    """A number the user may choose; `parameter` is the workload's stage.PARAMETER."""

    flag: str
    parameter: str
    default: int
    minimum: int
    maximum: int
    step: int = 1
    metavar: str = "N"
    help: str


class Companion(Protocol):
    """What a stage runs on the host beside the machine: a watcher, a sender.

    It hears each line of the dialogue before a rendezvous in it is answered, so that it can
    do at that point what the workload waits for.
    """

    def heard(self, text: str) -> None:
        """Take a line of the dialogue."""


class Surroundings(Protocol):
    """What a companion may know of its machine."""

    folder: Path
    """Where what is found stays."""
    scratch: Path
    """Where what is needed meanwhile may lie; it goes with the machine."""
    spec: MachineSpec
    process: QemuProcess
    ports: Mapping[str, Path]
    """Sockets of the spec's virtio ports, by name."""


CompanionFactory = Callable[[Surroundings], AbstractContextManager[Companion]]


class _Silent:
    def heard(self, text: str) -> None:
        """Do nothing."""


def no_companion(_machine: Surroundings) -> AbstractContextManager[Companion]:
    """For stages that need nothing on the host."""
    return nullcontext(_Silent())


@dataclass(frozen=True)
class LinuxGuest:
    """The Linux that a workload's guest is: a kernel of the same source, and its /init."""

    fragments: tuple[Path, ...]
    """Kconfig, on top of tinyconfig."""
    sources: Path
    """A folder with a Makefile; see common/run/initramfs.py:build_workload."""


GUEST_SOURCES = CHECKOUT / "common" / "workload" / "linux_guest"
"""The /init that every stage's Linux guest has."""
GUEST_CONFIG = GUEST_SOURCES / "kernel.config"
Workload = Literal["vmm", "qemu"]
WORKLOADS: tuple[Workload, ...] = ("vmm", "qemu")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A numbered demonstration."""

    number: int
    folder: Path
    name: str
    title: str
    claims: tuple[Claim, ...]
    not_claimed: tuple[str, ...]
    controls: tuple[Control, ...]
    options: tuple[Option, ...]
    cmdline: tuple[str, ...]
    size: Callable[[Mapping[str, int]], Size]
    phases: Callable[[Trial], dict[str, float]]
    """Milliseconds of each phase, in order; the sum need not be the blackout."""
    blackout: Callable[[Trial], dict[str, float]]
    """Those phases that follow each other and make up the blackout; empty without one."""
    headline: Callable[[Trial], dict[str, str]]
    """What the stage's row of the summary says: blackout, bytes preserved, FDs."""
    workload: Workload = "vmm"
    """Who runs the guest; a stage's declaration of another workload stands beside its first."""
    guest: LinuxGuest | None = None
    inner_qemu: Callable[[], Path] | None = None
    """The program of the QEMU that the workload runs in the machine."""
    guest_image: bool = False
    """The guest is an image of the user's."""
    own_guest: Callable[[Stage], Stage] | None = None
    """The stage with a guest of the user's own; None where it cannot have one."""
    demo_controls: frozenset[str] | None = None
    """The controls that `demo` shows; None: all of them."""
    debug_options: Mapping[str, int] = field(default_factory=dict)
    """Defaults of the options in the debug lane, where they differ."""
    debug_controls: frozenset[str] = frozenset()
    """The controls that go through code which the main run does not, for the debug lane."""
    lane: Literal["default", "debug", "server"] = "default"
    patience: int = 1
    """How many times as long everything may take; set by the lane."""
    extra_fragments: tuple[Path, ...] = ()
    """Kconfig fragments of the lane, and the user's."""
    series: Series = "ours"
    chain: int = 1
    """Updates in one machine, one after the other."""
    chain_controls: tuple[Control, ...] = ()
    """The controls that a chain has beside the others; none where there is no chain."""
    one_kernel: bool = False
    """Both sides are one prebuilt image."""
    left_out: tuple[str, ...] = ()
    """Controls that need kernels which cannot be built from what the user gave."""
    cpus: int = 2
    devices: Callable[[Mapping[str, int]], tuple[ET.Element, ...]] = lambda _options: ()
    """libvirt elements, for given options."""
    ports: tuple[str, ...] = ()
    """Virtio ports of the machine; see MachineSpec."""
    qemu_args: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    guest_runs_at: frozenset[str] = frozenset()
    """Rendezvous during which the guest runs: the host looks at the CPUs until it sees that."""
    witness: Witness = field(default=lambda _raw: {})
    companion: CompanionFactory = no_companion
    narration: Mapping[str, str] = field(default_factory=dict)
    """What to tell when a fact comes by: fact (or "await NAME", "kexec") -> words with {}."""

    def patches(self, control: Control | None = None) -> tuple[Path, ...]:
        """The kernel series in apply order; empty where the stock kernel will do.

        For a control without what it leaves out, and with what it adds. Raises UsageError where
        no patch, or more than one, is of the name that it leaves out.
        """
        patches = tuple(p for folder in self._series_folders() for p in series_patches(folder))
        if control is None or not control.own_kernels:
            return patches
        if control.stock:
            return ()
        more = (self.folder / control.with_patch,) if control.with_patch else ()
        if control.without_patch is None:
            return (*patches, *more)
        kept = tuple(p for p in patches if not p.name.startswith(control.without_patch))
        if len(kept) != len(patches) - 1:
            raise UsageError(
                f"control {control.name}: {len(patches) - len(kept)} patches of the series are"
                f" named {control.without_patch}"
            )
        return (*kept, *more)

    def _series_folders(self) -> tuple[Path, ...]:
        if isinstance(self.series, Path):
            return (self.series,)
        ours = CHECKOUT / "kernel" / "series"
        numbers = range(1, self.number + 1) if self.series == "ours" else ()
        return tuple(folder for n in numbers for folder in sorted(ours.glob(f"{n:02}_*")))

    @property
    def own_patches(self) -> tuple[Path, ...]:
        """Of `patches()` those that no earlier stage has: the last ones."""
        folders = self._series_folders()
        if self.series == "ours":
            folders = tuple(f for f in folders if f.name.startswith(f"{self.number:02}_"))
        return tuple(patch for folder in folders for patch in series_patches(folder))

    @property
    def series_fragments(self) -> tuple[Path, ...]:
        """The Kconfig fragments with the symbols that the series brings."""
        if isinstance(self.series, Path):
            return tuple(sorted(self.series.glob("*.config")))
        ours = self.folder / "series.config"
        return (ours,) if self.series == "ours" and ours.exists() else ()

    def fragments(
        self, control: Control | None = None, *, known: Callable[[Path], bool] = lambda _path: False
    ) -> tuple[Path, ...]:
        """The stage's Kconfig fragments, then those of a folder of patches, of lane and user.

        What our series adds is asked for where it is applied. Another series, or a tree with
        support of its own, is asked for it when `known` says that it has all those symbols.
        """
        found = [self.folder / "kernel.config"]
        ours = self.folder / "series.config"
        stock = control is not None and control.stock
        if not stock and self.series != "ours" and ours.exists() and known(ours):
            found.append(ours)
        if not stock:
            found += self.series_fragments
        last = (self.folder / control.with_config,) if control and control.with_config else ()
        return (*found, *self.extra_fragments, *last)

    @property
    def possible_controls(self) -> tuple[Control, ...]:
        """The controls that can be run on the kernels that the user gave."""
        return tuple(c for c in self.controls if c.name not in self.left_out)

    @property
    def label(self) -> str:
        """What the stage, with this workload, is called in names of runs and kernels."""
        return self.folder.name + ("" if self.workload == "vmm" else f"_{self.workload}")

    @property
    def sources(self) -> Path:
        """Where the program that is /init of the machine stands."""
        return self.folder / ("workload" if self.workload == "vmm" else f"{self.workload}_workload")

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks of all claims, in order."""
        return tuple(check for claim in self.claims for check in claim.checks)

    def shows(self, control: Control) -> bool:
        """True for the controls that `demo` runs."""
        return self.demo_controls is None or control.name in self.demo_controls

    def control(self, name: str) -> Control:
        """The control of that name. Raises UsageError naming those there are."""
        for control in self.controls:
            if control.name == name:
                return control
        names = ", ".join(control.name for control in self.controls)
        raise UsageError(f"stage {self.number} has no control {name!r}; it has: {names}")


def stage_folders() -> dict[int, Path]:
    """The stages of this checkout: number -> folder."""
    found = sorted((CHECKOUT / "stages").glob("[0-9][0-9]_*/kernel.config"))
    folders = [path.parent for path in found]
    return {
        int(folder.name[:2]): folder
        for folder in folders
        if (folder / folder.name[3:] / "stage.py").exists()
    }


def stage_workloads(number: int) -> tuple[Workload, ...]:
    """The workloads that the stage can be run with; the first is its own."""
    folder = stage_folders()[number]
    others = [w for w in WORKLOADS[1:] if (folder / f"{folder.name[3:]}_{w}" / "stage.py").exists()]
    return (WORKLOADS[0], *others)


def all_stages() -> tuple[Stage, ...]:
    """Every declaration of this checkout: the stages in order, each with all its workloads."""
    return tuple(load_stage(n, w) for n in stage_folders() for w in stage_workloads(n))


def load_stage(number: int, workload: Workload = "vmm") -> Stage:
    """The stage's declaration, from stages/NN_name/name/stage.py, or name_WORKLOAD/ beside it.

    Raises UsageError for a stage, or a workload of it, that there is not.
    """
    folders = stage_folders()
    if number not in folders:
        have = ", ".join(str(n) for n in folders)
        raise UsageError(f"there is no stage {number}; this checkout has: {have}")
    stem = folders[number].name[3:] + ("" if workload == "vmm" else f"_{workload}")
    if not (folders[number] / stem / "stage.py").exists():
        raise UsageError(f"stage {number} has no workload {workload!r}")
    if (folder := str(folders[number])) not in sys.path:
        sys.path.append(folder)  # 01_… is no package name; what stands in it is
    stage: Stage = importlib.import_module(f"{stem}.stage").STAGE
    return stage
