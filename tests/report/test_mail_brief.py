# SPDX-License-Identifier: GPL-2.0-only
"""The mail that people read: how long it is, and what it never leaves out."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from common.checks.model import BRIEF
from common.judge.stored_run import StoredRun, opened
from common.judge.verdict import ControlVerdict, Verdict
from common.report.mail.envelope import Envelope, report_mail
from common.report.mail.series import applied_series
from common.stage.chain import CLAIM as CHAIN
from common.stage.declaration import Stage
from common.stage.lane import CLAIM as DEBUG
from common.stage.lane import SERVER_CLAIM
from common.stage.loading import all_stages
from common.stage.run_config import RunConfig
from tests.recorded_trial import RECORDED
from tests.stored import store_run

LINES = 150
ENVELOPE = Envelope(
    sender="A Tester <tester@example.org>",
    to=("Somebody <somebody@example.org>", "linux-mm@example.org"),
    cc=("kexec@example.org", "iommu@example.org", "kvm@example.org"),
    in_reply_to="20250320144338.GW9311@example.com",
)
DEMO = (
    ("kvm_memfd", 1),
    ("kvm_memfd_qemu", 1),
    ("vfio_noiommu", 2),
    ("iommufd", 3),
    ("iommufd_qemu", 3),
)
Demo = list[StoredRun]


@pytest.fixture
def demo(runs: Path) -> Demo:
    """The recorded main run of every stage; all controls as if they had failed as expected."""
    found = []
    for name, stage in DEMO:
        main = RECORDED / name / "main"
        folder = store_run(runs / f"20261129-050721-{name}", (main, "main"), stage=stage)
        with opened(folder.name) as stored:
            found.append(judged(stored, partial(with_all_controls, stored.stage)))
    return found


def with_all_controls(stage: Stage, verdict: Verdict) -> Verdict:
    """Every control good, and no absence of the host's: what a quiet demo gives."""
    mains = tuple(main.model_copy(update={"away": None}) for main in verdict.trials)
    controls = tuple(
        ControlVerdict(
            trial=f"control-{control.name}",
            control=control.name,
            status="FAILED AS EXPECTED",
            why=control.what,
            answers=(),
        )
        for control in stage.controls
    )
    return verdict.model_copy(update={"trials": mains, "controls": controls})


def judged(stored: StoredRun, edit: Callable[[Verdict], Verdict]) -> StoredRun:
    """The run with another verdict: of as many controls nothing is recorded."""
    other = replace(stored)
    with_other = replace(stored.judged, verdict=edit(stored.verdict))
    other.__dict__.update(judged=with_other, seal=stored.seal)
    return other


def text_of(runs: Demo) -> str:
    return report_mail(runs, ENVELOPE).decode()


def body_of(runs: Demo) -> str:
    """The mail's body on one line: where a line ends is of no concern."""
    return " ".join(text_of(runs).partition("\n\n")[2].split())


def test_a_demo_of_five_stages_is_short(demo: Demo) -> None:
    lines = text_of(demo).splitlines()
    assert len(lines) <= LINES, len(lines)
    assert max(len(line) for line in lines[lines.index("") :]) <= 72
    body = body_of(demo)
    for stage in (one.stage for one in demo):
        assert all(claim.brief in body for claim in stage.claims)
    assert all(one.seal in body for one in demo)
    assert "01_liveupdate_fixes: 11 patches, digest" in body
    assert "02_vfio_noiommu: 40 patches, digest" in body
    assert "03_iommufd: 26 patches, digest" in body
    assert "Anomalies none; no splat on" in body
    assert "-by:" not in body.lower()
    assert body.isascii()


def test_controls_that_demo_leaves_to_run_are_named(demo: Demo) -> None:
    def shown(stage: Stage, verdict: Verdict) -> Verdict:
        kept = tuple(c for c in verdict.controls if stage.shows(stage.control(c.control)))
        return verdict.model_copy(update={"controls": kept})

    runs = [judged(one, partial(shown, one.stage)) for one in demo]
    assert len(text_of(runs).splitlines()) <= LINES
    body = body_of(runs)
    for one in demo:
        assert all(one.stage.shows(c) or c.name in body for c in one.stage.controls)


def test_nothing_that_is_wrong_is_left_out(demo: Demo) -> None:
    """A control that passed, was disturbed, failed for another reason or was not run; checks."""

    def wrong(verdict: Verdict) -> Verdict:
        passed, disturbed, other, _not_run, *rest = verdict.controls
        (main,) = verdict.trials
        failed = [
            a.model_copy(update={"outcome": a.outcome.model_copy(update={"status": status})})
            for a, status in zip(main.answers, ("FAIL", "NO DATA", "DISTURBED"), strict=False)
        ]
        return verdict.model_copy(
            update={
                "status": "FAIL",
                "why": "why it fell",
                "trials": (
                    main.model_copy(
                        update={
                            "status": "FAIL",
                            "why": "why it fell",
                            "answers": (*failed, *main.answers[len(failed) :]),
                            "disturbed": ("QEMU stood still",),
                            "away": "the host was away for 3 s",
                        }
                    ),
                ),
                "controls": (
                    passed.model_copy(update={"status": "PASSED", "why": "x did not notice"}),
                    disturbed.model_copy(update={"status": "DISTURBED", "why": "a stall"}),
                    other.model_copy(update={"status": "WRONG REASON", "why": "another"}),
                    *rest,
                ),
            }
        )

    for number, one in enumerate(demo):
        broken = [judged(two, wrong) if two is one else two for two in demo]
        body = body_of(broken)
        names = [control.name for control in one.stage.controls]
        checks = [check.name for check in one.stage.checks]
        for said in (
            f"control {names[0]} PASSED: x did not notice",
            f"control {names[1]} DISTURBED: a stall",
            f"control {names[2]} WRONG REASON: another",
            f"controls not run: {names[3]}",
            f"checks FAIL: {checks[0]}",
            f"checks NO DATA: {checks[1]}",
            f"checks DISTURBED: {checks[2]}",
            "FAIL stage",
            "QEMU stood still",
            "the host was away for 3 s",
            "* one kexec",
        ):
            assert said in body, (number, said)
        assert "Anomalies none" not in body


def test_a_run_without_controls_says_so(demo: Demo) -> None:
    bare = [judged(demo[0], lambda verdict: verdict.model_copy(update={"controls": ()}))]
    count = len(demo[0].stage.controls)
    assert f"none of its {count} controls was run" in body_of(bare)
    left_out = replace(demo[0].stage, config=RunConfig(skipped_controls=("tainted",)))
    (one,) = bare
    assert "controls skipped: " in body_of(
        [judged(replace(one, stage=left_out), lambda _v: one.verdict)]
    )


def test_controls_alone_show_no_claim(runs: Path) -> None:
    store_run(runs / "controls", (RECORDED / "kvm_memfd" / "control-panic", "control-panic"))
    with opened("controls") as one:
        body = body_of([one])
    assert "the stage itself was not run, so none of its claims is shown" in body
    assert "stage 1: no main run" in body


def test_what_was_planned_and_not_run_is_named(demo: Demo) -> None:
    one = demo[0]
    run = one.run.model_copy(update={"planned": (*one.run.planned, "repeat-02")})
    cut_short = judged(replace(one, run=run), lambda _verdict: one.verdict)
    assert "planned and not run: repeat-02" in body_of([cut_short])


def test_git_send_email_takes_it(demo: Demo, tmp_path: Path) -> None:
    path = tmp_path / "mail"
    path.write_bytes(report_mail(demo, ENVELOPE))
    done = subprocess.run(
        ["git", "send-email", "--dry-run", "--confirm=never", "--suppress-cc=all", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "EMAIL": "j@x.org"},
    )
    if "is not a git command" in done.stderr:
        pytest.skip("git send-email is not installed")
    assert done.returncode == 0, done.stderr
    assert "Subject: [REPORT] kexec-stages: stage 1 PASS" in done.stdout


def test_every_claim_fits_its_row() -> None:
    claims = {c for stage in all_stages() for c in stage.claims} | {CHAIN, DEBUG, SERVER_CLAIM}
    assert all(0 < len(claim.brief) <= BRIEF for claim in claims)
    for stage in all_stages():
        briefs = [claim.brief for claim in stage.claims]
        assert len(set(briefs)) == len(briefs)


def test_series_are_told_apart_by_their_numbers(demo: Demo) -> None:
    one = demo[3]
    (main,) = one.run.trials
    kernel = main.setting.outgoing
    found = applied_series(kernel, main.setting, one.stage)
    assert [(s.name, s.count) for s in found] == [
        ("01_liveupdate_fixes", 11),
        ("02_vfio_noiommu", 40),
        ("03_iommufd", 26),
    ]
    edited = kernel.model_copy(update={"patches": (*kernel.patches[:-1], "0026-x.patch 0123")})
    other = applied_series(edited, main.setting, one.stage)
    assert other[:2] == found[:2]
    assert other[2].digest != found[2].digest
    assert other[2].name is None
    given = main.setting.model_copy(update={"series": "/home/jane/theirs"})
    assert [s.name for s in applied_series(kernel, given, one.stage)] == ["theirs"] * 3
    assert re.fullmatch(
        r"theirs: 11 patches, digest [0-9a-f]{12}", str(applied_series(kernel, given, one.stage)[0])
    )
