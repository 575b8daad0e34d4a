# SPDX-License-Identifier: GPL-2.0-only
"""XFAIL, XPASS and N/A of single checks, in every format that names checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from common.cli.parser import main
from common.judge.stored_run import StoredRun, opened
from common.judge.verdict import judge
from common.report import ktap
from common.report.junit import junit_suites
from common.report.state import report_state
from common.report.text import report_text
from common.stage.loading import load_stage
from tests.recorded_trial import VFIO_NOIOMMU
from tests.stored import store_run

STAGE = load_stage(2)


@pytest.fixture
def stock(runs: Path) -> StoredRun:
    """A run of kernels without any patch, of which one check more than expected fell."""
    folder = store_run(runs / "stock", (VFIO_NOIOMMU / "stock", "main"), stage=2)
    gap = dataclasses.replace(STAGE.gaps[0], breaks=STAGE.gaps[0].breaks | {"ram_equal"})
    with opened(folder.name) as one:
        return dataclasses.replace(one, stage=dataclasses.replace(STAGE, gaps=(gap,)))


def test_ktap_has_a_word_for_all_but_xpass_which_it_tells(stock: StoredRun) -> None:
    verdict = judge(stock.run, stock.stage)
    lines = ktap.stage_result(1, stock.stage, stock.run, verdict).splitlines()
    text = "\n".join(lines)
    assert " dma_in_gap # XFAIL promise of our 02: PCI_COMMAND of 03:00.0 <-" in text
    assert " outgoing_rules # SKIP promise of our 02: no file of a device" in text
    assert "  # XPASS ram_equal: promise of Linux, not made but kept" in lines
    assert "not ok" not in text
    assert lines[-1].startswith("ok 1 02_vfio_noiommu # XFAIL main: ")
    assert lines[-1].endswith("; XPASS: ram_equal")


def test_the_text_says_whose_promise_it_is(stock: StoredRun) -> None:
    text = report_text(stock.run, judge(stock.run, stock.stage), stock.stage)
    assert "   xfail  dma_in_gap (our 02): expected " in text
    assert "   n/a    outgoing_rules (our 02): no file of a device can be preserved" in text
    assert "   XPASS  ram_equal (Linux): " in text
    assert "   ok     other_silent: " in text


def test_junit_skips_what_is_expected_or_cannot_be_asked(stock: StoredRun) -> None:
    (suite,) = junit_suites([dataclasses.replace(stock)])
    skipped = {
        case.get("name") for case in suite.iter("testcase") if case.find("skipped") is not None
    }
    assert {"dma_in_gap", "incoming_rules"} <= skipped
    assert "ram_equal" not in skipped
    assert suite.get("failures") == suite.get("errors") == "0"


def test_the_page_on_other_trees_has_no_path_of_this_machine(stock: StoredRun) -> None:
    page = report_state([stock], "# Their trees\n")
    assert "# Their trees\n" in page
    assert "| VFIO v5 | 20260714151505.3466855-1-vipinsh@google.com |" in page
    assert "| `dma_in_gap` | our 02 | XFAIL | 0 frames" in page
    assert "| `outgoing_rules` | our 02 | N/A | no file" in page
    assert "PCI_COMMAND of 03:00.0 &lt;- 0x103" in page
    assert "its image names kho-v4, luo-v5, memfd-v2" in page


def test_about_what_cannot_be_read_is_one_sentence(
    stock: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "none.md")
    assert main(["report", stock.name, "--format", "state", "--about", missing]) == 2
    assert capsys.readouterr().err.startswith(f"kexec-stages: --about {missing}: ")


def test_the_list_says_what_is_expected_of_a_tree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = tmp_path / "include" / "linux" / "kho" / "abi"
    headers.mkdir(parents=True)
    (tmp_path / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 4\n")
    (headers / "vfio_pci.h").write_text('#define VFIO_PCI_LUO_FH_COMPATIBLE "vfio-pci-v1"\n')
    assert main(["list", "--promised", str(tmp_path)]) == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in _stage_2(capsys) if line}
    assert rows["dma_in_gap"] == "our 02 XFAIL"
    assert rows["dma_after"] == "VFIO v5 PASS"
    assert rows["same_pages"] == "our 02 PASS or XFAIL"
    assert rows["outgoing_rules"].startswith("our 02 N/A: the errnos are those of our series")
    assert main(["list", "--promised", str(tmp_path), "--series", "ours"]) == 0
    assert not [line for line in _stage_2(capsys) if "XFAIL" in line]
    assert main(["list", "--promised", str(tmp_path / "nowhere")]) == 2


def _stage_2(capsys: pytest.CaptureFixture[str]) -> list[str]:
    text = capsys.readouterr().out
    return text[text.index("Stage 2, vmm") : text.index("Stage 3, vmm")].splitlines()
