# SPDX-License-Identifier: GPL-2.0-only
"""How a stage declares itself: claims, the checks that show them, the controls that break them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.checks.model import Check, Claim, Control
from common.checks.promise import SUITE, Gap, Promise, gap_of
from common.checks.swept import SweptCalls
from common.errors import UsageError
from common.machine.helper import HostHelperFactory, no_helper
from common.paths import CHECKOUT
from common.record.evidence import Trial, Witness
from common.record.trial_files import TrialFile
from common.record.witnesses import Witnessed
from common.stage.run_config import RunConfig
from common.stage.section import Section


@dataclass(frozen=True)
class Size:
    """What a machine needs for given options, with the sum in words."""

    machine_mib: int
    sum: str


@dataclass(frozen=True, kw_only=True)
class Option:
    """A number, or one of `words`, the user may choose; `parameter` is the workload's
    stage.PARAMETER."""

    flag: str
    parameter: str
    default: int
    minimum: int
    maximum: int
    step: int = 1
    metavar: str = "N"
    help: str
    words: tuple[str, ...] = ()
    """What the numbers from 0 on stand for, where the user has words for them."""

    def said(self, value: int) -> str:
        """The value in the user's words: on command lines, and in the record."""
        return self.words[value] if self.words else str(value)

    def value(self, text: str) -> int:
        """What was said. Raises ValueError for what nobody can choose."""
        value = self.words.index(text) if self.words else int(text)
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not between {self.minimum} and {self.maximum}")
        return value


@dataclass(frozen=True)
class LinuxGuest:
    """The Linux that a workload's guest is: a kernel of the same source, and its /init."""

    fragments: tuple[Path, ...]
    """Kconfig, on top of tinyconfig."""
    sources: Path
    """A folder with a Makefile; see common/run/initramfs.py:build_workload."""
    modules: Callable[[Mapping[str, int]], tuple[str, ...]] = lambda _options: ()
    """What /init loads into a kernel of the user's, unless it is built in, for given options."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What of a stage is otherwise on another architecture than the default one."""

    not_there: Mapping[str, str] = field(default_factory=dict)
    """Check or control -> why it does not apply."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """Check -> what is asked in its place."""
    controls: Mapping[str, Control] = field(default_factory=dict)
    """Control -> what is run in its place."""


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
    promises: Mapping[str, Promise]
    """Whose each check is, by its name. A lane's and a chain's own checks are the suite's."""
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
    own_guest: Callable[[Stage], Stage] | None = None
    """The stage with a guest of the user's own; None where it cannot have one. Where `guest` stays,
    its /init runs in the user's kernel."""
    demo_controls: frozenset[str] | None = None
    """The controls that `demo` shows; None: all of them."""
    debug_options: Mapping[str, int] = field(default_factory=dict)
    """Defaults of the options in the debug lane, where they differ."""
    debug_controls: frozenset[str] = frozenset()
    """The controls that go through code which the main run does not, for the debug lane."""
    seconds_per_gib: int = 60
    """How much longer a trial may take for each GiB of the machine, on an emulated CPU."""
    chain_controls: tuple[Control, ...] = ()
    """The controls that a chain has beside the others; none where there is no chain."""
    arch: Architecture = DEFAULT
    """Of the machine; set by the choice of kernels."""
    elsewhere: Mapping[str, Elsewhere | str] = field(default_factory=dict)
    """Name of another architecture -> what is otherwise there, or why the stage is not there."""
    cpus: int = 2
    devices: Callable[[Mapping[str, int]], tuple[ET.Element, ...]] = lambda _options: ()
    """libvirt elements, for given options."""
    ports: tuple[str, ...] = ()
    """Virtio ports of the machine; see MachineSpec."""
    qemu_args: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    guest_runs_at: frozenset[str] = frozenset()
    """Rendezvous during which the guest runs: the host looks at the CPUs until it sees that."""
    gaps: tuple[Gap, ...] = ()
    """What is expected of kernels that do not promise all of it; the more that they lack, the
    earlier."""
    files: tuple[TrialFile, ...] = ()
    """What its trials leave beside what every trial does; who reads a file has its model."""
    witness: Witness = field(default=lambda _raw: Witnessed())
    helper: HostHelperFactory = no_helper
    sections: tuple[Section, ...] = ()
    """What its reports have beside those of every stage."""
    progress_messages: Mapping[str, str] = field(default_factory=dict)
    """What to tell when a fact comes by: fact (or "await NAME", "kexec") -> words with {}."""
    swept_calls: SweptCalls | None = None
    """What `sweep` makes fail; None where there is no such program."""
    config: RunConfig = field(default_factory=RunConfig)
    """What this run chose; all else is declared, or follows from that and this."""

    @property
    def runnable_controls(self) -> tuple[Control, ...]:
        """The controls that can be run on the kernels that the user gave."""
        return tuple(c for c in self.controls if c.name not in self.config.skipped_controls)

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

    def promised_by(self, check: str) -> Promise:
        """Whose promise the check is."""
        return self.promises.get(check, SUITE)

    def gap(
        self, series: str, kernels: Sequence[tuple[Collection[str] | None, bool]]
    ) -> Gap | None:
        """What is expected of these two kernels, by what each offers (None: not recorded) and
        whether it was patched. None where they are held to everything, as with our series on them
        they are, whatever became of it."""
        if any(patched and (series == "ours" or offers is None) for offers, patched in kernels):
            return None
        return gap_of(self.gaps, [offers or () for offers, _ in kernels])

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
