# SPDX-License-Identifier: GPL-2.0-only
"""Claim by claim on kernels that do not promise all of them: XFAIL, XPASS, N/A, and until when."""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

import pytest

from common.checks.promise import LINUX, PROMISES, RUNNING, VFIO, Expiry, Gap, gap_of
from common.dma.evidence import DmaEvidence
from common.judge.expected import day_of, expected_of
from common.judge.verdict import TrialVerdict, judge_trial
from common.record.evidence import Trial, collect
from common.stage.declaration import Stage, Workload
from common.stage.loading import all_stages, load_stage
from tests.recorded_trial import IOMMUFD, RECORDED, VFIO_NOIOMMU, fallen_checks
from tests.stored import store_run

STAGE = load_stage(2)
FILES, STOPPED = STAGE.gaps
THEIRS = ("luo-v5", "memfd-v2", "pci-v2", "vfio-pci-v1")
OURS = ("luo-v5", "memfd-v2", "pci-live-v1", "vfio-pci-live-v1")


@pytest.fixture
def stock(tmp_path: Path) -> Trial:
    """Stage 2 as kernels without any patch recorded it."""
    folder = store_run(tmp_path / "run", (VFIO_NOIOMMU / "stock", "main"), stage=2)
    return collect(folder / "main", witness=STAGE.witness)


def of(
    trial: Trial,
    offers: tuple[str, ...] | None,
    *,
    incoming: tuple[str, ...] | None = None,
    release: str | None = None,
) -> Trial:
    """The trial as if its kernels offered that, and were of that release."""
    setting, update = trial.setting, {"release": release} if release else {}
    kernels = {
        "outgoing": setting.outgoing.model_copy(update={**update, "offers": offers}),
        "incoming": setting.incoming.model_copy(update={"offers": incoming or offers}),
    }
    return trial.model_copy(update={"setting": setting.model_copy(update=kernels)})


def statuses(verdict: TrialVerdict) -> dict[str, str]:
    return {answer.check: answer.outcome.status for answer in verdict.answers}


def with_gap(gap: Gap) -> Stage:
    return dataclasses.replace(STAGE, gaps=(gap,))


def test_each_check_says_whose_promise_it_is() -> None:
    for stage in all_stages():
        assert {check.name for check in stage.checks} == set(stage.promises), stage.label


def test_a_gap_speaks_of_checks_that_there_are_and_of_each_in_one_way() -> None:
    for stage in all_stages():
        names = {check.name for check in stage.checks}
        for gap in stage.gaps:
            assert gap.breaks | gap.may_break | set(gap.unasked) <= names, gap.name
            assert not gap.breaks & set(gap.unasked), gap.name
            # What every kernel promises is expected of every kernel.
            broken = {stage.promised_by(name) for name in gap.breaks}
            assert LINUX not in broken, gap.name
            assert not any(one.made_by(()) for one in broken), gap.name


def test_a_kernel_is_known_by_its_formats() -> None:
    made = [{one.whose for one in PROMISES if one.made_by(kernel)} for kernel in ((), THEIRS, OURS)]
    assert made[0] == {"suite", "Linux"}
    assert made[1] == {"suite", "Linux", "PCI v9", "VFIO v5"}
    assert made[2] == {"suite", "Linux", "PCI v9", "VFIO v5", "our 02"}
    assert gap_of(STAGE.gaps, [(), ()]) == FILES
    assert gap_of(STAGE.gaps, [THEIRS, THEIRS]) == STOPPED
    assert gap_of(STAGE.gaps, [OURS, THEIRS]) == STOPPED
    assert gap_of(STAGE.gaps, [OURS, ()]) == FILES
    assert gap_of(STAGE.gaps, [OURS, OURS]) is None


def test_a_stock_kernel_fails_as_expected_claim_by_claim(stock: Trial) -> None:
    verdict = judge_trial(of(stock, ("luo-v5", "memfd-v2")), STAGE)
    assert verdict.status == "XFAIL"
    found = statuses(verdict)
    assert {name for name, status in found.items() if status == "XFAIL"} > FILES.breaks
    assert found["outgoing_rules"] == found["incoming_rules"] == "N/A"
    assert found["ram_equal"] == found["other_silent"] == "PASS"
    by_name = {answer.check: answer for answer in verdict.answers}
    assert by_name["dma_in_gap"].whose == "our 02"
    assert "PCI_COMMAND of 03:00.0 <-" in (by_name["dma_in_gap"].cause or "")
    assert by_name["ram_equal"].cause is None
    assert by_name["device_retrieved"].cause == "preserve.device=-2 (ENOENT)"


def test_without_its_cause_nothing_is_expected(stock: Trial) -> None:
    """The host's witness saw no PCI_COMMAND: whatever fails then fails for another reason."""
    trace = stock.seen(DmaEvidence).trace.model_copy(update={"command": ()})
    witness = stock.witness.model_copy(update={"trace": trace})
    unseen = stock.model_copy(update={"witness": witness})
    verdict = judge_trial(unseen, STAGE)
    assert verdict.status == "FAIL"
    assert "XFAIL" not in statuses(verdict).values()


def test_a_kernel_that_promises_all_of_it_is_held_to_it(stock: Trial) -> None:
    verdict = judge_trial(of(stock, OURS), STAGE)
    assert verdict.status == "FAIL"
    assert statuses(verdict)["outgoing_rules"] == "NO DATA"
    assert not {"XFAIL", "XPASS", "N/A"} & {*statuses(verdict).values()}


def test_our_series_is_held_to_all_of_it_whatever_became_of_it(stock: Trial) -> None:
    """With an option off its kernels are no others: that is our failure."""
    kernels = of(stock, ("luo-v5", "memfd-v2")).setting
    patched = kernels.outgoing.model_copy(update={"patches": ("0001-x.patch 0",)})
    setting = kernels.model_copy(update={"series": "ours", "outgoing": patched})
    verdict = judge_trial(stock.model_copy(update={"setting": setting}), STAGE)
    assert verdict.status == "FAIL"
    theirs = setting.model_copy(update={"series": "/a/series"})
    verdict = judge_trial(stock.model_copy(update={"setting": theirs}), STAGE)
    assert verdict.status == "XFAIL"


def test_what_another_series_promises_it_is_held_to(stock: Trial) -> None:
    """A kernel with VFIO's handler that did not preserve the file fails at it."""
    verdict = judge_trial(of(stock, THEIRS), STAGE)
    assert verdict.status == "FAIL"
    assert statuses(verdict)["device_retrieved"] == "FAIL"


def test_what_holds_against_expectation_is_an_xpass(stock: Trial) -> None:
    better = dataclasses.replace(FILES, breaks=FILES.breaks | {"ram_equal"})
    verdict = judge_trial(stock, with_gap(better))
    assert verdict.status == "XFAIL"
    assert verdict.why.endswith("; XPASS: ram_equal")
    assert statuses(verdict)["ram_equal"] == "XPASS"


def test_a_kernel_that_keeps_what_it_does_not_promise_is_an_xpass(stock: Trial) -> None:
    fallen = fallen_checks(stock, dataclasses.replace(STAGE, gaps=()))
    claims = tuple(
        dataclasses.replace(c, checks=tuple(k for k in c.checks if k.name not in fallen))
        for c in STAGE.claims
    )
    gap = dataclasses.replace(FILES, breaks=frozenset({"ram_equal"}), unasked={})
    verdict = judge_trial(stock, dataclasses.replace(STAGE, claims=claims, gaps=(gap,)))
    assert (verdict.status, set(statuses(verdict).values())) == ("XPASS", {"PASS", "XPASS"})
    assert verdict.why == "what VFIO v5 promises is not promised here, but holds; XPASS: ram_equal"


@pytest.mark.parametrize(
    ("until", "release", "expired"),
    [
        (Expiry(release=(7, 6)), "7.3.4-luo-out", False),
        (Expiry(release=(7, 6)), "7.5.12", False),
        (Expiry(release=(7, 6)), "7.6.0-rc1", True),
        (Expiry(release=(7, 6)), "8.0", True),
        (Expiry(day=date(2999, 1, 1)), "8.0", False),
        (Expiry(day=date(2026, 1, 1)), "7.3.4", True),
    ],
)
def test_past_its_expiry_an_expected_failure_is_one(
    stock: Trial, until: Expiry, release: str, expired: bool
) -> None:
    stage = with_gap(dataclasses.replace(FILES, until=until))
    verdict = judge_trial(of(stock, (), release=release), stage)
    assert day_of(stock.setting) > date(2026, 1, 1)
    assert statuses(verdict)["dma_in_gap"] == ("FAIL" if expired else "XFAIL")
    if expired:
        assert verdict.status == "FAIL"
        assert verdict.why.endswith(f"; expected until {until} only")


@pytest.mark.parametrize(
    ("workload", "recording", "unasked"),
    [
        ("vmm", IOMMUFD / "main", {"outgoing_rules", "incoming_rules"}),
        ("qemu", RECORDED / "iommufd_qemu" / "main", {"same_qemu", "guest_time"}),
    ],
)
def test_stage_3_that_passes_on_kernels_without_a_promise_is_an_xpass(
    tmp_path: Path, workload: Workload, recording: Path, unasked: set[str]
) -> None:
    stage = load_stage(3, workload)
    folder = store_run(tmp_path / "run", (recording, "main"), stage=3)
    trial = collect(folder / "main", witness=stage.witness)
    setting = trial.setting.model_copy(update={"series": "none"})
    verdict = judge_trial(of(trial.model_copy(update={"setting": setting}), THEIRS), stage)
    assert verdict.status == "XPASS", verdict.why
    found = statuses(verdict)
    assert {name for name, one in found.items() if one == "XPASS"} == stage.gaps[0].breaks
    assert {name for name, one in found.items() if one == "N/A"} == unasked


def test_an_old_record_says_by_its_patches_what_its_kernels_promised(stock: Trial) -> None:
    old = of(stock, None)
    kernel = old.setting.outgoing.model_copy(update={"patches": ("0001-x.patch 0",)})
    setting = old.setting.model_copy(update={"outgoing": kernel, "incoming": kernel})
    assert expected_of(old.model_copy(update={"setting": setting}), STAGE) is None
    found = expected_of(old, STAGE)
    assert found and found.gap == FILES and FILES.lacks == VFIO and STOPPED.lacks == RUNNING
