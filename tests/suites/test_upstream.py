# SPDX-License-Identifier: GPL-2.0-only
"""What counts as a pass of the kernel's own tests, and what never does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.cli import gate as verb
from common.cli.parser import main
from common.errors import StagesError
from common.record.dialogue import Line
from common.record.stored_file import read_stamped
from common.run import stage_run
from common.suites.upstream.build import fragment, lacking, suite_tests
from common.suites.upstream.ktap import suite_result
from common.suites.upstream.result import Status, UpstreamResult, UpstreamTest, over, weigh
from kernel.errors import ConfigSymbolLost
from tests.conftest import sentence
from tests.recorded_trial import RECORDED

OUT, IN = "7.3.4-luo-out", "7.3.4-luo-in"
SIMPLE = UpstreamTest("liveupdate", "luo_kexec_simple", "TEST PASSED")
KHO = UpstreamTest("kho", "kho_restore", "KHO restore succeeded")
BOOT, JUMP = "Linux version {} (kexec-stages@x)", "kexec_core: Starting new kernel"
FROM = f"KHO: exec from: {OUT} (count 1)"
LUO = (
    BOOT.format(OUT),
    "INIT: Starting Stage 1",
    "# [STAGE 1] Starting pre-kexec setup...",
    "INIT: Stage 1 completed successfully.",
    JUMP,
    BOOT.format(IN),
    FROM,
    "INIT: Starting Stage 2",
    "# --- SIMPLE KEXEC TEST PASSED ---",
    BOOT.format(OUT),
)


def result(*texts: str, test: UpstreamTest = SIMPLE, in_time: bool = True) -> UpstreamResult:
    lines = [Line(t=t, text=f"[    0.{t:06}] {text}") for t, text in enumerate(texts)]
    return weigh(test, lines, outgoing=OUT, incoming=IN, in_time=in_time)


def test_a_pass_is_one_after_a_kexec() -> None:
    passed = result(*LUO)
    assert (passed.status, passed.why) == ("PASS", f"{IN} after a kexec from {OUT}")
    assert "# [STAGE 1] Starting pre-kexec setup..." in passed.said
    assert BOOT.format(OUT) not in passed.said


@pytest.mark.parametrize(
    ("texts", "status", "why"),
    [
        ((*LUO[:5], *LUO[6:]), "FAIL", f"no kexec to {IN}"),
        ((*LUO[:4], *LUO[5:]), "FAIL", f"no kexec to {IN}"),
        (tuple(text for text in LUO if text != FROM), "FAIL", "says nothing of a handover"),
        ((*LUO[:3], "# --- SIMPLE KEXEC TEST PASSED ---", *LUO[4:8]), "FAIL", "no 'TEST PASSED'"),
        (
            (*LUO[:2], "INIT: Failed to load kexec kernel", BOOT.format(OUT)),
            "FAIL",
            f"no kexec to {IN}: INIT: Failed to load kexec kernel",
        ),
        (
            (*LUO[:2], "1..0 # SKIP Failed to open /dev/liveupdate", LUO[0]),
            "SKIP",
            "Failed to open",
        ),
        ((*LUO[:9], "ok 1 luo # SKIP not here"), "SKIP", "the test says: not here"),
        ((*LUO[:8], "Kernel panic - not syncing: x", *LUO[8:]), "CRASHED", "Kernel panic"),
        ((), "FAIL", f"{OUT} did not come up"),
    ],
)
def test_what_is_no_pass(texts: tuple[str, ...], status: Status, why: str) -> None:
    found = result(*texts)
    assert (found.status, why in found.why) == (status, True), found


def test_a_test_that_does_not_end() -> None:
    assert result(*LUO[:3], in_time=False).status == "TIMEOUT"


def test_khos_own_panic_comes_after_its_result() -> None:
    """Its incoming kernel is given no initramfs: it says what it found, and cannot go on."""
    told = (LUO[0], JUMP, BOOT.format(IN), FROM, "test_kho: KHO restore succeeded")
    panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    assert result(*told, panic, test=KHO).status == "PASS"
    assert result(*told[:4], panic, test=KHO).status == "FAIL"
    assert result(LUO[0], panic, test=KHO).status == "CRASHED"


def test_a_machine_is_done_when_it_goes_through_its_firmware() -> None:
    lines = [Line(t=t, text=text) for t, text in enumerate(LUO)]
    assert [over(lines[:n], OUT) for n in (0, 1, 6, 9, 10)] == [False, False, False, False, True]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with what the two suites are made of, and nothing in it."""
    folder = tmp_path / "tree" / "tools" / "testing" / "selftests"
    for name in ("liveupdate/init.c", "liveupdate/lib/lu_utils.c", "kho/init.c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "liveupdate" / "config").write_text("CONFIG_LIVEUPDATE=y\n# a comment\n")
    (folder / "liveupdate" / "config.x86_64").write_text("CONFIG_SERIAL_8250=y\n")
    (folder / "kho" / "vmtest.sh").write_text(
        'tee "$kconfig" <<EOF\nCONFIG_KEXEC_HANDOVER=y\nCONFIG_TEST_KEXEC_HANDOVER=y\nEOF\n'
    )
    (folder / "kho" / "x86.conf").write_text('QEMU_KCONFIG="\nCONFIG_SERIAL_8250_CONSOLE=y\n"\n')
    for name in ("luo_one", "luo_two"):
        (folder / "liveupdate" / f"{name}.c").write_text("int main(void)\n")
    (folder / "liveupdate" / "luo_library.c").write_text("int helper(void)\n")
    return tmp_path / "tree"


def test_what_a_suite_asks_for_is_read_from_the_tree(tree: Path, tmp_path: Path) -> None:
    wanted = {
        suite: fragment(suite, tree, tmp_path).read_text().split()
        for suite in ("liveupdate", "kho")
    }
    assert wanted["liveupdate"] == ["CONFIG_LIVEUPDATE=y", "CONFIG_SERIAL_8250=y"]
    assert wanted["kho"] == [
        "CONFIG_KEXEC_HANDOVER=y",
        "CONFIG_TEST_KEXEC_HANDOVER=y",
        "CONFIG_SERIAL_8250_CONSOLE=y",
    ]
    assert [test.name for test in suite_tests("liveupdate", tree)] == ["luo_one", "luo_two"]


def test_a_tree_without_the_tests(tree: Path) -> None:
    assert lacking("kho", tree) is lacking("liveupdate", tree) is None
    for name in ("luo_one", "luo_two"):
        (tree / "tools/testing/selftests/liveupdate" / f"{name}.c").unlink()
    assert (
        lacking("liveupdate", tree) == "the tree has no test in tools/testing/selftests/liveupdate"
    )
    (tree / "tools/testing/selftests/kho/init.c").unlink()
    assert lacking("kho", tree) == "the tree has no tools/testing/selftests/kho/init.c"


Suite = tuple[UpstreamResult, ...] | StagesError
LOST = ConfigSymbolLost("CONFIG_LIVEUPDATE_TEST did not survive", ["LIVEUPDATE_TEST"], details=[])


@pytest.mark.parametrize(
    ("statuses", "exit_status"),
    [
        (["PASS", "PASS"], 0),
        (["PASS", "SKIP"], 4),
        (["SKIP", "FAIL"], 1),
        (["FAIL", "TIMEOUT"], 6),
        (["TIMEOUT", "CRASHED"], 5),
        ([None, "PASS"], 4),
    ],
)
def test_the_gate_never_passes_by_a_skip(
    statuses: list[Status | None],
    exit_status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def suites(*_: object) -> Iterator[tuple[str, Suite]]:
        for name, status in zip(("liveupdate", "kho"), statuses, strict=True):
            test = UpstreamTest(name, f"{name}_test", "x")
            yield name, (UpstreamResult(test, status, "why"),) if status else LOST

    monkeypatch.setattr(verb, "run_suites", suites)
    monkeypatch.setattr(verb, "probe", lambda *_given, **_: None)
    monkeypatch.setattr(verb, "Hypervisor", _NoHypervisor)
    folder = tmp_path / "x.part"
    folder.mkdir()
    monkeypatch.setattr(stage_run, "new_run_folder", lambda *_: folder)
    assert main(["gate", "--upstream"]) == exit_status
    said = capsys.readouterr().out
    assert said.startswith("KTAP version 1\n1..2\n")
    assert said.count("# SKIP") == sum(2 if s == "SKIP" else s is None for s in statuses)


class _NoHypervisor:
    def __init__(self, _uri: str | None) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_a_missing_option_is_named() -> None:
    said = suite_result(1, "liveupdate", LOST)
    assert said == "ok 1 liveupdate # SKIP CONFIG_LIVEUPDATE_TEST did not survive\n"


def test_what_goes_not_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--until", "1"], ["--baseline", "latest"], ["--controls"]):
        assert main(["gate", "--upstream", *words]) == 2
        assert "gate --upstream runs no stage" in sentence(capsys)
    assert main(["gate", "--upstream", "--image", str(tmp_path / "bzImage")]) == 2
    assert "builds kernels and tests from one tree" in sentence(capsys)


def test_a_kernel_that_loses_what_was_preserved() -> None:
    """A real console: memfd_luo did not mark the folios up to date that it gave back."""
    lines = read_stamped(RECORDED / "upstream" / "luo_kexec_simple.jsonl")
    found = weigh(SIMPLE, lines, outgoing=OUT, incoming=IN, in_time=True)
    bailed = "Bail out! [run_stage_2:56] Expected stage 2, but state file contains 0"
    assert found.status == "FAIL"
    assert found.why.startswith(f"no 'TEST PASSED': {bailed}")
    assert over(lines, OUT)
    mended = [
        line._replace(text="--- SIMPLE KEXEC TEST PASSED ---") if bailed in line.text else line
        for line in lines
    ]
    assert weigh(SIMPLE, mended, outgoing=OUT, incoming=IN, in_time=True).status == "PASS"
    swapped = weigh(SIMPLE, mended, outgoing=IN, incoming=OUT, in_time=True)
    assert swapped.status == "FAIL"


def test_khos_own_test_on_a_real_console() -> None:
    """Recorded with a tree whose script asks for no DEBUG_VM; the panic comes after the result."""
    lines = read_stamped(RECORDED / "upstream" / "kho_restore.jsonl")
    found = weigh(KHO, lines, outgoing=OUT, incoming=IN, in_time=True)
    assert (found.status, found.why) == ("PASS", f"{IN} after a kexec from {OUT}")
    lost = [line for line in lines if KHO.passed not in line.text]
    assert weigh(KHO, lost, outgoing=OUT, incoming=IN, in_time=True).status == "FAIL"
