# SPDX-License-Identifier: GPL-2.0-only
"""Each of the eight results, from a trial that has it, as `run` and `gate` show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from common.checks.promise import VFIO, Expiry, Gap
from common.errors import CannotRunHere
from common.judge.verdict import EXIT_OF, RunStatus, judge
from common.record.evidence import Run, Trial
from common.report import ktap
from common.report.text import report_text
from common.stage.declaration import Stage
from common.stage.loading import load_stage
from tests.judge.test_verdict import replacing

STAGE = load_stage(1)
Recorded = Callable[..., Trial]
ENDED = {"ended_detail": "after 'pause': the detail"}


def without_series(recorded: Recorded) -> tuple[Trial, Stage]:
    """A trial that fails as kernels that lack a promise do, and the stage that expects it."""
    like = STAGE.control("not-preserved")
    trial = recorded("main", line="dialogue", edit=replacing("retrieve.ram=0", "retrieve.ram=-2"))
    gap = Gap(
        name="ram",
        lacks=VFIO,
        what=like.what,
        breaks=frozenset({"memfds_retrieved"}),
        may_break=frozenset(),
        unasked={},
        cause=like.reason,
        until=Expiry(release=(99, 0)),
    )
    return trial, dataclasses.replace(STAGE, gaps=(gap,))


def trials_of(status: RunStatus, recorded: Recorded) -> tuple[tuple[Trial, ...], Stage]:
    if status == "XFAIL":
        trial, stage = without_series(recorded)
        return (trial,), stage
    if status == "BROKEN":
        control = {"name": "control-byte-flipped", "control": "byte-flipped"}
        return (recorded("main"), recorded("main", setting=control)), STAGE
    if status == "FAIL":
        edit = replacing("# finish=0", "# finish=-16")
        return (recorded("main", line="dialogue", edit=edit),), STAGE
    ended = {"ERROR": "gone", "CRASHED": "crashed", "TIMEOUT": "timeout"}.get(status)
    setting = {"ended": ended, **ENDED} if ended else None
    panic = replacing("Run /init", "Kernel panic - not syncing: x") if ended == "crashed" else None
    return (recorded("main", edit=panic, setting=setting),), STAGE


@pytest.mark.parametrize(
    ("status", "exit_status", "line"),
    [
        ("PASS", 0, "ok 1 01_kvm_memfd"),
        ("XFAIL", 0, "ok 1 01_kvm_memfd # XFAIL main: the RAM memfd is not added to the session"),
        ("FAIL", 1, "not ok 1 01_kvm_memfd"),
        ("BROKEN", 1, "not ok 1 01_kvm_memfd"),
        ("ERROR", 3, "not ok 1 01_kvm_memfd # ERROR main: after 'pause': the detail"),
        ("CRASHED", 5, "not ok 1 01_kvm_memfd"),
        ("TIMEOUT", 6, "not ok 1 01_kvm_memfd # TIMEOUT main: after 'pause': the detail"),
    ],
)
def test_a_result_with_its_reason(
    status: RunStatus, exit_status: int, line: str, recorded: Recorded
) -> None:
    trials, stage = trials_of(status, recorded)
    run = Run(stage=1, tool="t", commit="c", started="s", command=("run", "1"), trials=trials)
    verdict = judge(run, stage)
    assert (verdict.status, int(verdict.exit)) == (status, exit_status)
    said = ktap.stage_result(1, stage, run, verdict).splitlines()
    assert said[-1].startswith(line)
    if status != "PASS":
        assert said[-2].startswith(f"# {status}: {verdict.why.split(':')[0]}")
    text = report_text(run, verdict, stage)
    assert text.splitlines()[0].endswith(status)


def test_a_skip_has_its_reason() -> None:
    said = ktap.not_run(1, STAGE, CannotRunHere("too little memory"))
    assert said == "ok 1 01_kvm_memfd # SKIP too little memory\n"
    assert (EXIT_OF["SKIP"], CannotRunHere("x").exit_status) == (4, 4)


def test_controls_alone_claim_nothing(recorded: Recorded) -> None:
    """No main run: neither "0/0 passed" nor a claim that is shown."""
    trials = (recorded("control-byte-flipped"),)
    run = Run(stage=1, tool="t", commit="c", started="s", command=("run", "1"), trials=trials)
    verdict = judge(run, STAGE)
    assert (verdict.status, verdict.why) == (
        "PASS",
        "1 control failed as expected; the stage itself was not run, so none of its claims is"
        " shown",
    )
    assert "Claims" not in report_text(run, verdict, STAGE)
    two = judge(run.model_copy(update={"trials": (*trials, recorded("control-panic"))}), STAGE)
    assert two.why.startswith("2 controls failed as expected; the stage itself was not run")
