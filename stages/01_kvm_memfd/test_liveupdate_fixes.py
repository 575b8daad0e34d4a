# SPDX-License-Identifier: GPL-2.0-only
"""Each bug that kernel/series/01_liveupdate_fixes mends, on Linux as it is and with the fixes.

Run by `./kexec-stages test stages/01_kvm_memfd/test_liveupdate_fixes.py -m debug_kernels`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from common.host.accel import probe
from common.machine.hypervisor import Hypervisor
from common.paths import CHECKOUT
from common.record.stored_file import read_stamped
from common.run.kernels import BuildProgress, source_of
from common.stage.kernel_choice import KernelChoice
from common.stage.series_folder import series_patches
from common.suites.upstream.build import fragment
from common.suites.upstream.result import UpstreamResult, UpstreamTest
from common.suites.upstream.run import run_suites, run_test, suite_kernel
from kernel.source.worktree import prepare

pytestmark = pytest.mark.debug_kernels
FIXES = CHECKOUT / "kernel" / "series" / "01_liveupdate_fixes"
SIMPLE = UpstreamTest("liveupdate", "luo_kexec_simple", "TEST PASSED")

Results = Mapping[str, UpstreamResult]
"""By the name of the program."""
Simple = Callable[[Path, str, str], tuple[UpstreamResult, list[str]]]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The series less its fixes: the programs that show what they mend."""
    folder = tmp_path_factory.mktemp("series")
    for patch in series_patches(FIXES):
        if patch.name[5:].startswith("selftests-"):
            shutil.copy(patch, folder)
    return folder


def results(series: Path, hypervisor: Hypervisor, folder: Path) -> Results:
    choice = replace(KernelChoice(), series=series)
    suite, found = next(run_suites(choice, hypervisor, probe(), folder))
    assert suite == "liveupdate"
    assert isinstance(found, tuple), found
    return {one.test.name: one for one in found}


@pytest.fixture(scope="module")
def stock(
    without: Path, hypervisor: Hypervisor, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    return results(without, hypervisor, tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def fixed(hypervisor: Hypervisor, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(FIXES, hypervisor, tmp_path_factory.mktemp("fixed"))


SHOWN = [
    ("luo_readonly", "PRESERVE_FD failed, and the file is preserved"),
    ("luo_no_memory", "KiB lost"),
    ("luo_kexec_load", "no 'TEST PASSED'"),
    ("luo_unfinished", "no 'TEST PASSED'"),
]


@pytest.mark.parametrize(("program", "why"), SHOWN)
def test_a_program_fails_without_the_fixes_and_passes_with_them(
    stock: Results, fixed: Results, program: str, why: str
) -> None:
    assert (stock[program].status, why in stock[program].why) == ("FAIL", True), stock[program]
    assert fixed[program].status == "PASS", fixed[program]


def test_what_passed_before_passes_with_the_fixes(stock: Results, fixed: Results) -> None:
    before = {name for name, one in stock.items() if one.status == "PASS"}
    assert before == set(stock) - {name for name, _ in SHOWN}
    assert all(fixed[name].status == "PASS" for name in before)


@pytest.fixture
def simple(hypervisor: Hypervisor, tmp_path: Path) -> Simple:
    """luo_kexec_simple on kernels with a series: (result, the console).

    The outgoing kernel's Kconfig has one line more, the incoming one's command line a word.
    """

    def run(series: Path, option: str, word: str) -> tuple[UpstreamResult, list[str]]:
        progress, patches = BuildProgress(), series_patches(series)
        source = source_of(KernelChoice().outgoing, progress)
        folder = tmp_path / series.name
        folder.mkdir()
        more = folder / "more.config"
        more.write_text(f"{option}\n")
        patched = prepare(source, patches, progress)
        with patched.lock:
            asked = fragment("liveupdate", patched.path, folder)
            out, into = (
                suite_kernel("liveupdate", source, side, patches, (asked, *config), progress)
                for side, config in (("out", (more,)), ("in", ()))
            )
            tree = with_word(patched.path, word, folder / "tree")
            result = run_test(SIMPLE, tree, (out, into), hypervisor, probe(), folder)
        console = read_stamped(folder / SIMPLE.name / "console.jsonl")
        return result, [line.text for line in console]

    return run


def with_word(tree: Path, word: str, target: Path) -> Path:
    """What the programs are made of, with an init that adds the word to the command line."""
    tests = Path("tools/testing/selftests")
    shutil.copytree(tree / tests / "liveupdate", target / tests / "liveupdate")
    shutil.copy(tree / tests / "kselftest.h", target / tests)
    (target / "tools" / "include").symlink_to(tree / "tools" / "include")
    init = target / tests / "liveupdate" / "init.c"
    text = init.read_text()
    assert text.count('" luo_stage=2"') == 1
    init.write_text(text.replace('" luo_stage=2"', f'" luo_stage=2 {word}"'))
    return target


def test_a_kernel_with_live_update_off_says_so_instead_of_losing_what_arrived(
    simple: Simple, without: Path
) -> None:
    before, said = simple(without, "", "liveupdate=off")
    assert (before.status, "Failed to open /dev/liveupdate" in before.why) == ("SKIP", True)
    assert not any("preserved" in line for line in said if "STAGE 1" not in line)
    after, said = simple(FIXES, "", "liveupdate=off")
    assert (after.status, "live update is disabled" in after.why) == ("CRASHED", True), after
    assert any("boot with kho=on liveupdate=on" in line for line in said)


def test_an_flb_that_only_the_new_kernel_knows_is_not_counted_down(
    simple: Simple, without: Path
) -> None:
    unknown = "# CONFIG_LIVEUPDATE_TEST is not set"
    _, said = simple(without, unknown, "")
    assert any("refcount_t: underflow" in line for line in said)
    after, said = simple(FIXES, unknown, "")
    assert after.status == "PASS", after
    assert not any("refcount_t: underflow" in line for line in said)
