# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kernel's own live update tests, built from the tree under test, in our machine.

With a series both are: its kernels, and the tests that it brings.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import StagesError
from common.host.accel import Accelerator
from common.machine.domain import MachineSpec
from common.machine.hypervisor import Hypervisor
from common.machine.machine import KernelDied, Machine, MachineGone, MachineSilent
from common.paths import CHECKOUT
from common.record.stored_file import read_stamped
from common.run.kernels import BuildProgress, base_configs, source_of
from common.stage.kernel_choice import KernelChoice
from common.stage.loading import stage_folders
from common.stage.series_folder import series_patches
from common.suites.upstream.build import SUITES, build_initrd, fragment, lacking, suite_tests
from common.suites.upstream.result import UpstreamResult, UpstreamTest, over, weigh
from kernel.build import KernelSpec, build
from kernel.cache import Kernel
from kernel.errors import ConfigSymbolLost, MissingKconfig
from kernel.source.source import Source
from kernel.source.worktree import prepare

# Stage 1's kernel with a few options more: most of it is in the cache when that has been built.
_FRAGMENTS = (
    *base_configs(),
    stage_folders()[1] / "kernel.config",
    CHECKOUT / "kernel" / "configs" / "upstream.config",
)
# As in upstream's scripts; the machine has its 1 GiB and 2 CPUs.
_CMDLINE = "console=ttyS0 kho=on liveupdate=on panic=-1"
_MEMORY_MIB, _CPUS = 1024, 2
_SECONDS = 180.0


def run_suites(
    choice: KernelChoice, hypervisor: Hypervisor, accelerator: Accelerator, folder: Path
) -> Iterator[tuple[str, tuple[UpstreamResult, ...] | StagesError]]:
    """Suite by suite, its results; what a test's console said is left in `folder`.

    The series is applied where the choice names a folder; ours needs more than these suites ask
    for. Where options are missing the error is the value: then nothing of the suite was run.
    Raises SourceError at once for a tree that is none.
    """
    progress = BuildProgress()
    sources = tuple(source_of(origin, progress) for origin in choice.origins)
    patches = series_patches(choice.series) if isinstance(choice.series, Path) else ()
    asked = _Asked(sources, patches, choice.config)
    return _suites(asked, progress, (hypervisor, accelerator, folder))


@dataclass(frozen=True)
class _Asked:
    """The sources of the outgoing and of the incoming kernel, and what is done to both."""

    sources: tuple[Source, ...]
    patches: tuple[Path, ...]
    config: tuple[Path, ...]


def _suites(
    asked: _Asked, progress: BuildProgress, where: tuple[Hypervisor, Accelerator, Path]
) -> Iterator[tuple[str, tuple[UpstreamResult, ...] | StagesError]]:
    patched = prepare(asked.sources[-1], asked.patches, progress)
    with patched.lock:
        tree = patched.path
        for suite in SUITES:
            if reason := lacking(suite, tree):
                yield suite, MissingTest(reason)
                continue
            try:
                pair = _pair(suite, asked, tree, where[-1], progress)
            except (ConfigSymbolLost, MissingKconfig) as error:
                yield suite, error
                continue
            tests = suite_tests(suite, tree)
            yield suite, tuple(run_test(test, tree, pair, *where) for test in tests)


class MissingTest(StagesError):
    """The tree has no such test, or not all that is needed to build it."""


def _pair(
    suite: str, asked: _Asked, tree: Path, folder: Path, progress: BuildProgress
) -> tuple[Kernel, Kernel]:
    """Two kernels with what the machine needs and all that the suite itself asks for."""
    config = (fragment(suite, tree, folder), *asked.config)
    out, into = (
        suite_kernel(suite, source, side, asked.patches, config, progress)
        for source, side in zip(asked.sources, ("out", "in"), strict=True)
    )
    return out, into


def suite_kernel(
    suite: str,
    source: Source,
    side: str,
    patches: tuple[Path, ...],
    config: tuple[Path, ...],
    progress: BuildProgress,
) -> Kernel:
    """One of the two, with these fragments over those of stage 1."""
    return build(
        KernelSpec(
            source=source,
            label=f"upstream {suite} {side}",
            localversion=f"-luo-{side}",
            fragments=(*_FRAGMENTS, *config),
            patches=patches,
        ),
        progress=progress,
    )


def run_test(
    test: UpstreamTest,
    tree: Path,
    pair: tuple[Kernel, Kernel],
    hypervisor: Hypervisor,
    accelerator: Accelerator,
    folder: Path,
) -> UpstreamResult:
    """One machine, from its cold boot until upstream's init reboots it through the firmware."""
    outgoing, incoming = pair
    target = folder / test.name
    target.mkdir()
    with hypervisor.workspace(f"upstream-{secrets.token_hex(4)}") as workspace:
        spec = MachineSpec(
            name=f"stages-{workspace.name}",
            memory_mib=_MEMORY_MIB,
            cpus=_CPUS,
            accelerator=accelerator,
            kernel=outgoing.image,
            initrd=build_initrd(test, tree, outgoing, incoming, workspace),
            cmdline=_CMDLINE,
        )
        with Machine(spec, hypervisor=hypervisor, folder=target) as machine:
            in_time = _wait(machine, target, outgoing.release)
    lines = read_stamped(target / "console.jsonl")
    return weigh(test, lines, outgoing=outgoing.release, incoming=incoming.release, in_time=in_time)


def _wait(machine: Machine, folder: Path, outgoing: str) -> bool:
    """True when the test has ended, False when it had not in time. It has no dialogue with us."""
    deadline = machine.deadline(_SECONDS)
    while not _over(folder, outgoing):
        try:
            machine.next_line(silence=0.3, deadline=deadline)
        except MachineSilent:
            if deadline.passed():
                return False
        except (KernelDied, MachineGone):
            return True
    return True


def _over(folder: Path, outgoing: str) -> bool:
    try:
        return over(read_stamped(folder / "console.jsonl"), outgoing)
    except ValueError:
        return False  # a line is just being written
