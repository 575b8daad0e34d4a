# SPDX-License-Identifier: GPL-2.0-only
"""`python -m kernel.upstream_tests`: upstream's own tests, without and with the series of stage 3.

Two kernels of one configuration, one with the patches of stage 2 and one with those of stage 3 as
well. Each runs the KUnit tests of the generic page table while it boots, and then
tools/testing/selftests/iommu/iommufd of the same tree. The consoles stay in the folder that is
given; on stdout is a table of counts, and the tests that ended otherwise with the series.
Exit status 1 when there are any.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from common.initramfs import make_initramfs
from common.kernel_choice import DEFAULT_PACKAGE
from common.kernels import BASE_CONFIG, BuildProgress
from common.stage import load_stage
from kernel.build import KernelSpec, build
from kernel.cache import Kernel
from kernel.source import debian_source
from kernel.upstream_tests.results import counts, differences, results

_HERE = Path(__file__).parent
# On an emulated CPU the selftest takes some minutes.
_BOOT_SECONDS = 1800


def main() -> int:
    """Build, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where consoles and programs go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    before, after = (results(_run(number, folder)) for number in (2, 3))
    rows = [[name, *counts(before, name), *counts(after, name)] for name in ("KUnit", "iommufd")]
    headers = ["", *(f"{when}: {what}" for when in ("without", "with") for what in _WHAT)]
    print(tabulate(rows, headers=headers))
    found = differences(before, after)
    print("\n".join(found) if found else "No test ends otherwise with the series.")
    return 1 if found else 0


_WHAT = ("ok", "skipped", "not ok")


def _run(number: int, folder: Path) -> str:
    """The console of the kernel with the series up to that stage's."""
    progress = BuildProgress()
    source = debian_source(DEFAULT_PACKAGE, progress=progress)
    stage = load_stage(number)
    kernel = build(
        KernelSpec(
            source=source,
            label=f"upstream tests {number}",
            localversion=f"-tests-{number}",
            fragments=(
                BASE_CONFIG,
                load_stage(3).folder / "kernel.config",
                stage.folder / "series.config",
                _HERE / "upstream_tests.config",
            ),
            patches=stage.patches(),
        ),
        progress=progress,
    )
    programs = {
        "/init": _compile(_HERE / "init.c", folder / "init", ()),
        "/iommufd": _compile(
            source.path / "tools/testing/selftests/iommu/iommufd.c",
            folder / "iommufd",
            ("-isystem", kernel.headers / "include", "-I", source.path / "tools/testing/selftests"),
        ),
    }
    initrd = make_initramfs(
        programs, gen_init_cpio=kernel.gen_init_cpio, target=folder / f"initrd-{number}.cpio"
    )
    console = folder / f"console-{number}.log"
    _boot(kernel, initrd, console)
    return console.read_text(errors="replace")


def _compile(source: Path, target: Path, flags: tuple[object, ...]) -> Path:
    command = ["gcc", "-static", "-O2", "-D_GNU_SOURCE", *map(str, flags)]
    command += ["-I", str(_HERE / "include"), "-o", str(target), str(source), "-pthread"]
    subprocess.run(command, check=True)
    return target


def _boot(kernel: Kernel, initrd: Path, console: Path) -> None:
    command = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "EPYC", "-smp", "2"]
    command += ["-m", "1024", "-display", "none", "-no-reboot", "-nic", "none"]
    command += ["-kernel", str(kernel.image), "-initrd", str(initrd)]
    command += ["-append", "console=ttyS0 panic=-1", "-serial", f"file:{console}"]
    subprocess.run(command, check=True, timeout=_BOOT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
