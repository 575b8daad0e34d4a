# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own live update tests: which there are, and how they are built.

tools/testing/selftests/liveupdate and kho each come with a script that builds a kernel, boots
QEMU and looks for one line on the console. Here the same programs, built with the same options
from the tree under test, are made to run in our machine across a kexec between two kernels.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.errors import HarnessError
from common.run.initramfs import make_initramfs
from common.suites.upstream.result import UpstreamTest
from kernel.image.prebuilt import Bootable

SUITES = ("liveupdate", "kho")
_SELFTESTS = Path("tools/testing/selftests")
# As in the two vmtest.sh.
_NOLIBC = ("gcc", "-static", "-nostdinc", "-nostdlib")
_INIT = ("-s", "-Os", "-fno-asynchronous-unwind-tables", "-fno-ident", "-fno-stack-protector")
_OPTION = re.compile(r"^(?:# )?CONFIG_\w+(?:=\S+| is not set)$", re.MULTILINE)


def suite_tests(suite: str, tree: Path) -> tuple[UpstreamTest, ...]:
    """The tests of a suite that run across a kexec, as the tree has them."""
    if suite == "kho":
        return (UpstreamTest("kho", "kho_restore", "KHO restore succeeded"),)
    luo = sorted((tree / _SELFTESTS / "liveupdate").glob("luo_*.c"))
    programs = [path.stem for path in luo if "int main(" in path.read_text()]
    return tuple(UpstreamTest("liveupdate", name, "TEST PASSED") for name in programs)


def lacking(suite: str, tree: Path) -> str | None:
    """Why the tree's suite cannot be built, None where it can."""
    needed = {"liveupdate": ("config", "init.c", "lib/lu_utils.c"), "kho": ("vmtest.sh", "init.c")}
    for name in needed[suite]:
        if not (tree / _SELFTESTS / suite / name).exists():
            return f"the tree has no {_SELFTESTS / suite / name}"
    return None if suite_tests(suite, tree) else f"the tree has no test in {_SELFTESTS / suite}"


def fragment(suite: str, tree: Path, folder: Path) -> Path:
    """The Kconfig options that the suite itself asks for on x86, as a file in `folder`.

    Those of liveupdate are in config and config.x86_64, those of kho in its script and x86.conf.
    """
    tests = tree / _SELFTESTS / suite
    names = ("config", "config.x86_64", "vmtest.sh", "x86.conf")
    texts = [(tests / name).read_text() for name in names if (tests / name).exists()]
    target = folder / f"{suite}.config"
    target.write_text("".join(f"{line}\n" for text in texts for line in _OPTION.findall(text)))
    return target


def build_initrd(
    test: UpstreamTest, tree: Path, outgoing: Bootable, incoming: Bootable, folder: Path
) -> Path:
    """The test's initramfs, with the incoming kernel in it; built in `folder`, not in the tree.

    Raises HarnessError with the compiler's message.
    """
    tests = tree / _SELFTESTS / test.suite
    includes = ["-I", str(outgoing.headers / "include"), "-I", str(tree / "tools/include/nolibc")]
    init, program = folder / "init", folder / "test_binary"
    _compile([*_NOLIBC, *_INIT, *includes, "-o", str(init), str(tests / "init.c")])
    files = {"/init": init}
    tool = outgoing.gen_init_cpio
    if test.suite == "kho":
        return make_initramfs(
            files | {"/kernel": incoming.image}, gen_init_cpio=tool, target=folder / "initrd"
        )
    sources = [str(tests / f"{test.name}.c"), str(tests / "lib" / "lu_utils.c")]
    library = ["-I", str(tests / "lib" / "include")]
    _compile([*_NOLIBC, "-O2", *includes, *library, "-o", str(program), *sources])
    files |= {"/test_binary": program}
    inner = make_initramfs(files, gen_init_cpio=tool, target=folder / "inner")
    files |= {"/kernel": incoming.image, "/initrd.img": inner}
    return make_initramfs(files, gen_init_cpio=tool, target=folder / "initrd")


def _compile(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        raise HarnessError(f"upstream's {Path(command[-1]).name} does not build: {first.strip()}")
