# SPDX-License-Identifier: GPL-2.0-only
"""compare and the gate's baseline: what got worse comes first, noise is not called a change."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from common.checks.live_update import fact_is
from common.checks.model import Check
from common.checks.promise import VFIO, Expiry, Gap
from common.cli import gate as run_verbs
from common.cli.parser import main
from common.errors import CannotRunHere
from common.judge.verdict import Verdict, judge
from common.record.evidence import Run, Trial
from common.report import ktap
from common.report.comparison import NEEDED, differences, median_interval, worsened
from common.stage.loading import load_stage
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD
from tests.stored import store_run, write_record

STAGE = load_stage(1)
Recorded = Callable[..., Trial]


def verdict_of(*trials: Trial) -> Verdict:
    run = Run(stage=1, tool="t", commit="c", started="s", command=(), trials=trials)
    return judge(run, STAGE)


def replacing(old: str, new: str) -> Callable[[list[tuple[int, str]]], list[tuple[int, str]]]:
    return lambda lines: [(t, text.replace(old, new)) for t, text in lines]


@pytest.fixture
def worse_folder(runs: Path, run_folder: Path) -> Path:
    """A run like `run_folder`, but FINISH failed in it, and it was sealed as such."""
    folder = store_run(runs / "worse", (run_folder / "main", "main"))
    for suffix in ("jsonl", "log"):
        path = folder / "main" / f"dialogue.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"# finish=0", b"# finish=-16"))
    write_record(folder)
    return folder


def test_pass_to_fail_comes_first_and_counts(
    run_folder: Path, worse_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", run_folder.name, worse_folder.name]) == 1
    text = capsys.readouterr().out
    assert "\nWorse\n- verdict: PASS to FAIL" in text
    assert "- session_finished: PASS to FAIL: expected finish=0; seen finish=-16" in text
    assert text.index("Worse") < text.index("Times")
    assert max(map(len, text.splitlines())) <= 72
    assert main(["compare", worse_folder.name, run_folder.name]) == 0
    text = capsys.readouterr().out
    assert "Better\n- verdict: FAIL to PASS" in text
    assert "Worse" not in text


def test_a_run_and_itself(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", run_folder.name, run_folder.name]) == 0
    text = capsys.readouterr().out
    assert "All checks and controls have the same result." in text
    assert "Same kernels, host, options and program." in text
    assert f"Run both with --repeat {NEEDED} or more" in " ".join(text.split())


def test_repeats_say_what_is_noise(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"repeat-{number:02}" for number in range(1, NEEDED + 1)]
    for folder in ("a", "b"):
        store_run(runs / folder, *((KVM_MEMFD / "main", name) for name in names))
    assert main(["compare", "a", "b"]) == 0
    text = capsys.readouterr().out
    assert f"A (n={NEEDED})" in text
    assert "Noise: 0 of " in text


def test_times_of_two_lanes_are_not_compared(
    runs: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store_run(runs / "debug", (run_folder / "main", "main"))
    path = folder / "main" / "trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lane": "debug"}))
    write_record(folder)
    main(["compare", run_folder.name, folder.name])
    text = capsys.readouterr().out
    assert "Times: not compared: tcg, default lane against tcg, debug lane." in text
    assert max(map(len, text.splitlines())) <= 72


def test_runs_of_two_stages_are_not_compared(
    run_folder: Path, run_2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", run_folder.name, run_2_folder.name]) == 2
    assert "there is nothing to compare" in sentence(capsys)


def test_a_control_that_no_longer_fails_is_worse(recorded: Recorded) -> None:
    good = verdict_of(recorded("main"), recorded("control-byte-flipped"))
    bad = verdict_of(
        recorded("main"), recorded("main", setting={"name": "c", "control": "byte-flipped"})
    )
    worse = {one.what: one.text for one in worsened(good, bad)}
    assert worse["verdict"].startswith("PASS to BROKEN")
    assert worse["control byte-flipped"].startswith("FAILED AS EXPECTED to PASSED")
    without = verdict_of(recorded("main"))
    assert [one.change for one in differences(good, without)] == ["other"]


def test_the_interval_of_a_median_is_seldom_wrong() -> None:
    """Not assumed but counted: of 2000 samples it misses the median in fewer than one in 20."""
    assert median_interval([1.0] * (NEEDED - 1)) is None
    dice, missed = random.Random(3), 0
    for _ in range(2000):
        found = median_interval([dice.expovariate(1) for _ in range(11)])
        assert found
        missed += not found[0] <= 0.693147 <= found[1]
    assert missed / 2000 < 0.05


def test_kernels_without_the_series_fail_as_expected(recorded: Recorded) -> None:
    """XFAIL where the stock kernel's own cause is seen, FAIL where it is another."""
    stock = Gap(
        name="files",
        lacks=VFIO,
        what="a kernel without any patch",
        breaks=frozenset({"session_finished"}),
        may_break=frozenset(),
        unasked={},
        cause=Check("reason", "?", fact_is("incoming", "finish", "-16")),
        until=Expiry(release=(99, 0)),
    )
    stage = dataclasses.replace(STAGE, gaps=(stock,))

    def judged(old: str, new: str, *, patched: bool = False) -> Verdict:
        trial = recorded("main", line="dialogue", edit=replacing(old, new))
        if patched:
            kernel = trial.setting.outgoing.model_copy(update={"patches": ("0001-x.patch",)})
            setting = trial.setting.model_copy(update={"outgoing": kernel})
            trial = trial.model_copy(update={"setting": setting})
        run = Run(stage=1, tool="t", commit="c", started="s", command=(), trials=(trial,))
        return judge(run, stage)

    expected = judged("# finish=0", "# finish=-16")
    assert (expected.status, int(expected.exit)) == ("XFAIL", 0)
    assert expected.why == "main: a kernel without any patch: finish=-16 (EBUSY); 1 XFAIL"
    assert judged("# finish=0", "# finish=-5").status == "FAIL"
    assert judged("# finish=0", "# finish=-16", patched=True).status == "FAIL"
    assert judged("pfn.moved=0", "pfn.moved=1").status == "FAIL"
    better = judged("nothing", "nothing")
    assert (better.status, int(better.exit)) == ("XPASS", 0)
    assert "XPASS: session_finished" in better.why
    passed = verdict_of(recorded("main"))
    assert [one.what for one in worsened(passed, expected)] == ["verdict", "session_finished"]
    said = ktap.stage_result(
        1, stage, Run(stage=1, tool="t", commit="c", started="s", command=(), trials=()), expected
    )
    assert "\nok 1 01_kvm_memfd # XFAIL main: a kernel" in said
    assert "not ok" not in said


class _NoHypervisor:
    def __init__(self, _uri: str | None) -> None:
        pass

    def __enter__(self) -> _NoHypervisor:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`gate --until 1` in which the trial is one that was recorded, or an error."""

    def run(answer: Trial | Exception, *words: str) -> int:
        def run_one(*_: object, **_beside: object) -> tuple[Run, Verdict, Path]:
            if isinstance(answer, Exception):
                raise answer
            record = Run(stage=1, tool="t", commit="c", started="s", command=(), trials=(answer,))
            return record, judge(record, STAGE), Path()

        monkeypatch.setattr(run_verbs, "execute_run", run_one)
        monkeypatch.setattr(run_verbs, "Hypervisor", _NoHypervisor)
        monkeypatch.setattr(run_verbs, "all_stages", lambda: (STAGE,))
        return main(["gate", "--until", "1", *words])

    return run


def test_gate_holds_a_run_against_its_baseline(
    gate: Callable[..., int],
    recorded: Recorded,
    run_folder: Path,
    run_2_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gate(recorded("main"), "--baseline", run_folder.name) == 0
    capsys.readouterr()
    fewer = dataclasses.replace(STAGE, claims=STAGE.claims[:-1])
    trial = recorded("main")
    record = Run(stage=1, tool="t", commit="c", started="s", command=(), trials=(trial,))
    worse = worsened(judge(record, STAGE), judge(record, fewer))
    said = ktap.stage_result(1, fewer, record, judge(record, fewer), worse=worse)
    assert f"  not ok {len(fewer.checks) + 1} as_good_as_baseline_many_came\n" in said
    assert said.splitlines()[-1] == "not ok 1 01_kvm_memfd"
    assert gate(recorded("main"), "--baseline", run_2_folder.name) == 2
    assert "is of stage 2, which is not run" in sentence(capsys)
    assert gate(recorded("main"), "--baseline", "nothing") == 2
    assert "there is no run 'nothing'" in sentence(capsys)


def test_gate_says_what_it_could_not_run(
    gate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(CannotRunHere("too little memory")) == 4
    said = capsys.readouterr()
    assert said.out == "KTAP version 1\n1..1\nok 1 01_kvm_memfd # SKIP too little memory\n"
    assert said.err == "kexec-stages: too little memory\n"
