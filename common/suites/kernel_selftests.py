# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own tests of what a series touches, without the series and with it.

iommufd's selftests are programs; the generic page table's KUnit tests are in the kernel and run
while it boots. Both are of the tree under test, and run in our machine.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import HarnessError
from common.host.accel import Accelerator
from common.machine.domain import MachineSpec
from common.machine.hypervisor import Hypervisor
from common.machine.machine import KernelDied, Machine, MachineGone, MachineSilent
from common.paths import CHECKOUT
from common.record.console import strip_prefix
from common.record.stored_file import read_stamped
from common.run.initramfs import build_workload, make_initramfs
from common.run.kernels import BuildProgress, base_configs, source_of
from common.stage.declaration import Stage
from common.stage.kernel_choice import KernelChoice
from common.stage.series import patches_of, series_fragments
from common.suites.kernel_ktap import Result, results
from kernel.build import KernelSpec, build
from kernel.cache import Kernel
from kernel.source.source import Source

_PROGRAMS = ("iommufd", "iommufd_fail_nth")
_TESTS = Path("tools/testing/selftests")
_SOURCES = CHECKOUT / "common" / "workload" / "selftests"
_CONFIG = CHECKOUT / "kernel" / "configs" / "selftests.config"
# Some of iommufd's tests map huge pages, up to 128 MiB twice. KUnit takes some minutes for each
# format of page tables on an emulated CPU; VT-d's is the one that is handed over.
_CMDLINE = "console=ttyS0 hugepages=160 kunit.filter_glob=vtdss*"
_MEMORY_MIB, _CPUS = 2048, 1
_SECONDS = 1500.0

Suites = Mapping[str, Mapping[str, Result]]
"""Suite -> test -> result."""


def run_selftests(
    stage: Stage,
    choice: KernelChoice,
    hypervisor: Hypervisor,
    accelerator: Accelerator,
    folder: Path,
) -> tuple[Suites, Suites]:
    """The results without the stage's series and with it; consoles are left in `folder`.

    Raises HarnessError when a kernel does not come to the end of its tests.
    """
    progress = BuildProgress()
    source = source_of(choice.outgoing, progress)
    found = []
    for name, series in (("without", False), ("with", True)):
        spec = KernelSpec(
            source=source,
            label=f"selftests {name} the series",
            localversion=f"-{name}",
            fragments=(
                *base_configs(),
                stage.folder / "kernel.config",
                _CONFIG,
                *(series_fragments(stage) if series else ()),
                *choice.config,
            ),
            patches=patches_of(stage) if series else (),
        )
        kernel = build(spec, progress=progress)
        target = folder / name
        target.mkdir()
        _run(kernel, source, hypervisor, accelerator, target)
        found.append(read_results(target))
    return found[0], found[1]


def fallen(before: Suites, after: Suites) -> list[str]:
    """The tests that passed before, and do not after: `suite test: result`."""
    return [
        f"{suite} {test}: {after.get(suite, {}).get(test, 'gone')}"
        for suite, tests in before.items()
        for test, result in tests.items()
        if result == "ok" and after.get(suite, {}).get(test) != "ok"
    ]


def _run(
    kernel: Kernel,
    source: Source,
    hypervisor: Hypervisor,
    accelerator: Accelerator,
    folder: Path,
) -> None:
    with hypervisor.workspace(f"selftests-{secrets.token_hex(4)}") as workspace:
        files = {"/init": build_workload(_SOURCES, headers=kernel.headers)}
        for name in _PROGRAMS:
            files[f"/tests/{name}"] = _build_program(name, source.path, kernel, workspace)
        spec = MachineSpec(
            name=f"stages-{workspace.name}",
            memory_mib=_MEMORY_MIB,
            cpus=_CPUS,
            accelerator=accelerator,
            kernel=kernel.image,
            initrd=make_initramfs(
                files, gen_init_cpio=kernel.gen_init_cpio, target=workspace / "initrd"
            ),
            cmdline=_CMDLINE,
        )
        with Machine(spec, hypervisor=hypervisor, folder=folder) as machine:
            _wait(machine)


def _build_program(name: str, tree: Path, kernel: Kernel, folder: Path) -> Path:
    """As the tests' own Makefile does, but static. Raises HarnessError with gcc's message."""
    tests, program = tree / _TESTS, folder / name
    command = ["gcc", "-O2", "-w", "-static", "-D_GNU_SOURCE="]
    command += ["-isystem", str(kernel.headers / "include"), "-I", str(tests)]
    command += ["-o", str(program), str(tests / "iommu" / f"{name}.c"), "-lcap"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"the tree's {name} does not build: {done.stderr.strip()[:600]}")
    return program


def _wait(machine: Machine) -> None:
    deadline = machine.deadline(_SECONDS)
    try:
        while (text := machine.next_line(silence=_SECONDS, deadline=deadline)) != "# done":
            if text.startswith("# bail "):
                raise HarnessError(text)
    except (KernelDied, MachineGone, MachineSilent) as error:
        raise HarnessError(
            f"the kernel did not end its tests: {error} (its console: {machine.folder})"
        ) from error


def read_results(folder: Path) -> Suites:
    """KUnit's results are on the console, those of a program follow its name in the dialogue.

    "programs" has a result for each program: ok when it ended by itself, whatever it found.
    """
    console = [strip_prefix(line.text) for line in read_stamped(folder / "console.jsonl")]
    said: dict[str, list[str]] = {name: [] for name in _PROGRAMS}
    ended: dict[str, Result] = dict.fromkeys(_PROGRAMS, "not ok")
    name = ""
    for line in read_stamped(folder / "dialogue.jsonl"):
        if line.text.startswith("# program="):
            name = line.text.removeprefix("# program=")
        elif line.text.startswith("# exit="):
            ended[name] = "ok"
        elif name:
            said.setdefault(name, []).append(line.text)
    return {
        "KUnit": results(console),
        "programs": ended,
        **{name: results(lines) for name, lines in said.items()},
    }


def counts(tests: Mapping[str, Result]) -> Sequence[int]:
    """How many passed, failed, were skipped."""
    values = list(tests.values())
    return [values.count(word) for word in ("ok", "not ok", "skip")]
