# SPDX-License-Identifier: GPL-2.0-only
"""Soaks: what is kept, what is gone on with, what the table says. No machine is started."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.cli import soak as verb
from common.cli.parser import main
from common.errors import HarnessError, UsageError
from common.paths import CHECKOUT
from common.record.evidence import Run, Trial
from common.run.setup import plan_trials
from common.stage.loading import load_stage
from common.suites.soak.rounds import Judged, RunOne, go_on, judged
from common.suites.soak.state import (
    Chosen,
    Result,
    Soak,
    State,
    exit_of,
    opened,
    report,
    stored,
    upper_end,
)
from tests.conftest import FakeHypervisor, sentence

MAIN, CONTROL = ("01_a", "main"), ("01_a", "control-b")
STATE = State(
    chosen=Chosen(stages=("01_a",), controls=True, load=4, others={}),
    trials=(MAIN, CONTROL),
    commit="0123456789ab",
    begun="2026-11-28T18:00:00+00:00",
    kernels={"01_a": "k1 k2"},
)
RIGHT = {"main": Judged("PASS", "28 checks"), "control-b": Judged("FAILED AS EXPECTED", "seen")}
FAIL = Judged("FAIL", "ram_equal: expected 0; seen 1 (dialogue.log)")
DISTURBED = Judged("DISTURBED", "host away 152 ms at +1.2 s", attempts=3)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "soak"


@pytest.fixture
def soak(root: Path) -> Iterator[Soak]:
    """A soak of two trials, begun."""
    with opened("some", fresh=False) as one:
        assert one.folder == root / "some"
        one.begin(STATE)
        yield one


def coming_to(*found: Judged | BaseException) -> RunOne:
    """Trials that leave a file each and come to these, in turn; those after them are right."""
    turns = iter(found)

    def run_one(_stage: str, trial: str, folder: Path) -> Judged:
        (folder / "console.log").write_text("what the kernel said\n")
        one = next(turns, RIGHT["main" if trial == "main" else "control-b"])
        if isinstance(one, BaseException):
            raise one
        return one

    return run_one


def written(soak: Soak) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (soak.folder / "results.jsonl").read_text().splitlines()]


def test_a_line_for_each_trial_and_no_folder_of_those_that_were_right(
    soak: Soak, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on(soak, coming_to(), rounds=2)
    lines = written(soak)
    assert [(line["round"], line["trial"], line["status"]) for line in lines] == [
        (1, "main", "PASS"),
        (1, "control-b", "FAILED AS EXPECTED"),
        (2, "main", "PASS"),
        (2, "control-b", "FAILED AS EXPECTED"),
    ]
    assert lines[0]["commit"] == STATE.commit
    assert lines[0].keys() == Result.model_fields.keys()
    assert not [path for path in soak.folder.rglob("*") if path.name == "console.log"]
    told = capsys.readouterr().err.splitlines()
    assert "round 2, 2 of 2 (4 right, 0 disturbed, 0 wrong): 01_a control-b: failed as" in told[3]
    assert exit_of(soak.results) == 0


def test_the_first_wrong_trial_of_each_kind_is_kept(soak: Soak) -> None:
    other = Judged("FAIL", "registers: expected 1; seen 2 (dialogue.log)")
    passed = Judged("PASSED", "ram_equal did not notice")
    go_on(soak, coming_to(FAIL, passed, FAIL, DISTURBED, other, DISTURBED), rounds=3)
    kept = sorted(str(p.relative_to(soak.folder)) for p in soak.folder.glob("*/*/console.log"))
    assert kept == [
        "disturbed/01_a.control-b.DISTURBED/console.log",
        "wrong/01_a.control-b.PASSED.ram_equal/console.log",
        "wrong/01_a.main.FAIL.ram_equal/console.log",
        "wrong/01_a.main.FAIL.registers/console.log",
    ]
    assert [line["kept"] and line["round"] for line in written(soak)] == [1, 1, None, 2, 3, None]
    assert exit_of(soak.results) == 1


def test_an_error_is_a_result_of_its_trial_alone(soak: Soak) -> None:
    broken = HarnessError("QEMU did not start", details=("its own words",))
    full = OSError(28, "No space left on device", "/run/x")
    go_on(soak, coming_to(broken, full), rounds=2)
    assert [(r.status, r.why, r.kind) for r in soak.results[:2]] == [
        ("HARNESS", "QEMU did not start", "wrong"),
        ("HARNESS", "/run/x: No space left on device", "wrong"),
    ]
    kept = soak.folder / "wrong" / "01_a.main.HARNESS"
    assert (kept / "error.txt").read_text() == "QEMU did not start\nits own words\n"
    assert [r.kind for r in soak.results[2:]] == ["right", "right"]
    assert exit_of(soak.results) == 3


def test_a_harness_that_can_no_more_gives_up(soak: Soak) -> None:
    with pytest.raises(HarnessError, match=r"5 trials in a row could not be run; .*: no room"):
        go_on(soak, coming_to(*(HarnessError("no room") for _ in range(9))))
    assert len(written(soak)) == 5


def test_an_interrupted_trial_is_run_again(soak: Soak) -> None:
    with pytest.raises(KeyboardInterrupt):
        go_on(soak, coming_to(RIGHT["main"], FAIL, RIGHT["main"], KeyboardInterrupt()), rounds=3)
    assert soak.next_trial() == (2, *CONTROL)
    assert soak.running.exists()
    again = Soak("some")
    again.mend()
    assert not again.running.exists()
    assert again.next_trial() == (2, *CONTROL)
    go_on(again, coming_to(), rounds=3)
    assert [(r.round, r.trial) for r in Soak("some").results] == [
        (number, trial) for number in (1, 2, 3) for _, trial in STATE.trials
    ]


def test_half_a_line_is_half_a_trial(soak: Soak) -> None:
    """A harness that was killed as it wrote: the trial is run again, the line does not stay."""
    go_on(soak, coming_to(), rounds=1)
    path = soak.folder / "results.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-20])
    again = Soak("some")
    again.mend()
    go_on(again, coming_to(), rounds=1)
    assert [line["trial"] for line in written(again)] == ["main", "control-b"]


def test_hours_are_of_trials_in_all(soak: Soak, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(step=1800)
    monkeypatch.setattr("common.suites.soak.rounds.time.monotonic", lambda: next(ticks))
    go_on(soak, coming_to(), hours=1)
    assert len(soak.results) == 2
    go_on(soak, coming_to(), hours=1)
    assert len(soak.results) == 2
    go_on(soak, coming_to(), hours=1.1)
    assert len(soak.results) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"commit": "ba9876543210"}, "at commit 0123456789ab, and this is ba9876543210"),
        ({"chosen": {"load": 0}}, "with 01_a; load 4; now it is 01_a; load 0"),
        ({"kernels": {"01_a": "k1 k3"}}, "with other trials or kernels"),
    ],
)
def test_another_soak_under_its_name(soak: Soak, change: dict[str, Any], says: str) -> None:
    chosen = STATE.chosen.model_copy(update=change.get("chosen", {}))
    other = STATE.model_copy(update=change | {"chosen": chosen})
    with pytest.raises(UsageError, match=says) as raised:
        Soak("some").begin(other)
    assert "--fresh begins anew, --name NAME keeps both" in str(raised.value)
    # not known yet: no contradiction
    soak.check(STATE.model_copy(update={"kernels": {}, "trials": ()}))


def test_two_harnesses_do_not_share_a_soak(soak: Soak) -> None:
    with pytest.raises(UsageError, match="is being run by another"), opened("some", fresh=True):
        pass
    assert stored("some").state == soak.state


def test_begun_anew(soak: Soak) -> None:
    go_on(soak, coming_to(FAIL), rounds=1)
    soak.forget()
    assert (soak.state, soak.results) == (None, [])
    assert not [path for path in soak.folder.rglob("*") if path.is_file() and path.name != "lock"]


def test_begun_anew_over_what_is_damaged(root: Path) -> None:
    (root / "some").mkdir(parents=True)
    (root / "some" / "state.json").write_text("{")
    with pytest.raises(UsageError, match=r"state\.json is damaged"), opened("some", fresh=False):
        pass
    with opened("some", fresh=True) as soak:
        assert soak.state is None


@pytest.mark.parametrize(
    ("wrong", "runs", "percent"),
    [
        # one-sided 95 %, bisected elsewhere with decimals of 60 digits
        (0, 1300, 0.230176),
        (0, 20, 13.9108),
        (1, 20, 21.6106),
        (2, 20, 28.2619),
        (5, 100, 10.2253),
        (3, 1300, 0.59535),
        (20, 20, 100.0),
        (0, 1, 95.0),
    ],
)
def test_the_upper_end_of_an_interval(wrong: int, runs: int, percent: float) -> None:
    assert 100 * upper_end(wrong, runs) == pytest.approx(percent, abs=0.0001)


@pytest.mark.parametrize(("wrong", "runs"), [(1, 20), (7, 65), (30, 64), (63, 64)])
def test_by_the_definition(wrong: int, runs: int) -> None:
    """The tail summed with integers."""
    rate = upper_end(wrong, runs)
    tail = sum(comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(wrong + 1))
    assert tail == pytest.approx(0.05, abs=1e-9)


def test_the_table(soak: Soak) -> None:
    again = Judged("PASS", "28 checks", attempts=2)
    go_on(soak, coming_to(again, RIGHT["control-b"], FAIL, DISTURBED), rounds=2)
    go_on(soak, coming_to(), rounds=10)
    text = report(soak)
    lines = text.splitlines()
    assert lines[0] == (
        "Soak some: 10 rounds; 01_a; load 4; commit 0123456789ab, begun 2026-11-28T18:00:00+00:00"
    )
    rows = [line.split() for line in lines[5:8]]
    assert rows == [
        ["01_a", "main", "10", "9", "1", "0", "1", "39.42", "%"],
        ["01_a", "control-b", "10", "9", "3", "1", "0", "28.31", "%"],
        ["all", "20", "18", "4", "1", "1", "22.64", "%"],
    ]
    assert f"    {soak.folder}/wrong/01_a.main.FAIL.ram_equal" in lines
    assert "wrong, first in round 2: 01_a main FAIL: ram_equal: expected 0; seen 1" in text
    assert "disturbed, first in round 2: 01_a control-b DISTURBED: host away 152 ms" in text


def test_the_table_of_a_round_that_is_not_over(soak: Soak) -> None:
    go_on(soak, coming_to(RIGHT["main"]), rounds=1)
    soak.results.pop()
    assert report(soak).startswith("Soak some: 0 rounds and 1 of 2 trials;")
    assert report(soak).splitlines()[6].split() == ["01_a", "control-b", *"00000", "-"]


@pytest.mark.parametrize(
    ("found", "status"),
    [([], 0), ([DISTURBED], 3), ([Judged("ERROR", "QEMU has gone")], 3), ([DISTURBED, FAIL], 1)],
)
def test_exit_statuses(soak: Soak, found: list[Judged], status: int) -> None:
    go_on(soak, coming_to(*found), rounds=1)
    assert exit_of(soak.results) == status


def test_the_first_attempt_that_was_not_disturbed_counts(recorded: Callable[..., Trial]) -> None:
    stage = load_stage(1)
    lost = recorded("main", setting={"ended": "timeout", "ended_detail": "after 'pause': silent"})
    corrupted = lost.model_copy(update={"qemu_fault": "QEMU lost an EOI"})
    second = recorded("main", setting={"name": "main-attempt-2", "attempt": 2})

    def run(*trials: Trial) -> Run:
        return Run(stage=1, tool="t", commit="c", started="s", command=("soak",), trials=trials)

    assert judged(run(corrupted, second), stage) == Judged("PASS", f"{len(stage.checks)} checks", 2)
    assert judged(run(lost, second), stage).status == "TIMEOUT"
    assert judged(run(corrupted), stage).status == "DISTURBED"
    control = judged(run(recorded("control-byte-flipped")), stage)
    assert (control.status, control.attempts) == ("FAILED AS EXPECTED", 1)


def test_a_fault_of_qemus_at_every_attempt_is_the_kernels(
    recorded: Callable[..., Trial],
) -> None:
    setting = {"ended": "timeout", "ended_detail": "after 'pause': silent"}
    attempts = tuple(
        recorded("main", setting={**setting, "attempt": n}).model_copy(
            update={"qemu_fault": "QEMU lost an EOI"}
        )
        for n in (1, 2, 3)
    )

    def status(*trials: Trial) -> str:
        run = Run(stage=1, tool="t", commit="c", started="s", command=("run",), trials=trials)
        return judged(run, load_stage(1)).status

    assert status(*attempts[:2]) == "DISTURBED"
    assert status(*attempts) == "FAIL"
    went_on = tuple(
        attempt.model_copy(
            update={
                "lost_interrupt": attempt.qemu_fault,
                "setting": attempt.setting.model_copy(update={"ended": "done"}),
                "sides": attempt.sides[:1],
            }
        )
        for attempt in attempts
    )
    assert status(*went_on[:2]) == "DISTURBED"
    assert status(*went_on) == "FAIL", "also where the machine went on, and a check failed"
    assertion = "QEMU ended by itself: iotlb_to_section: Assertion `x' failed (qemu.log)"
    ended = tuple(
        attempt.model_copy(
            update={
                "qemu_fault": assertion,
                "setting": attempt.setting.model_copy(update={"ended": "gone"}),
            }
        )
        for attempt in attempts
    )
    assert status(*ended) == "DISTURBED", "whatever a kernel does, an assertion is QEMU's"
    by_host = attempts[1].model_copy(update={"qemu_fault": None})
    assert status(attempts[0], by_host, attempts[2]) == "TIMEOUT"


def test_what_fails_as_expected_is_right(soak: Soak) -> None:
    expected = Judged("XFAIL", "a kernel that hands over no device's file: -2; 30 XFAIL")
    go_on(soak, coming_to(expected, RIGHT["control-b"], Judged("XPASS", "kept")), rounds=2)
    assert [r.kind for r in soak.results] == ["right"] * 4
    assert exit_of(soak.results) == 0
    assert not [r for r in soak.results if r.kept]


def test_controls_of_kernels_that_promise_less_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = load_stage(2)
    (gap, _) = stage.gaps
    plans = {
        (label, plan.name): plan
        for label in ("01_a", "02_b")
        for plan in plan_trials(controls=stage.controls[:3])
    }
    setups: Any = {
        "01_a": SimpleNamespace(gap=lambda: None),
        "02_b": SimpleNamespace(gap=lambda: gap),
    }
    kept = verb._telling(plans, setups)
    assert [label for label, _ in kept] == ["01_a"] * 4 + ["02_b"]
    assert kept.keys() & {("02_b", "main")}
    assert f"02_b: {gap.what}: its 3 controls are left out" in capsys.readouterr().err


Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """`soak` of stage 1's own workload, whose trials come to `found`, in turn."""

    def run(*words: str, found: tuple[Judged | BaseException, ...] = (), commit: str = "c1") -> int:
        monkeypatch.setattr(verb, "Hypervisor", FakeHypervisor)
        monkeypatch.setattr(verb, "_setups", lambda *_words: {})
        monkeypatch.setattr(verb, "checkout_commit", lambda: commit)
        monkeypatch.setattr(verb, "_runner", lambda *_words: coming_to(*found))
        return main(["soak", "--stage", "1", "--workload", "vmm", *words])

    return run


def test_the_command(command: Command, capsys: pytest.CaptureFixture[str], root: Path) -> None:
    controls = len(load_stage(1).controls)
    assert command("--rounds", "1", "--no-controls") == 0
    assert command("--rounds", "1") == 0
    rows = capsys.readouterr().out.splitlines()
    assert len([row for row in rows if row.startswith("01_kvm_memfd  control-")]) == controls
    assert {path.name for path in root.iterdir()} == {"stage-1-vmm", "stage-1-vmm-no-controls"}


def test_the_command_goes_on(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--no-controls", "--rounds", "3")
    assert command(*words, found=(RIGHT["main"], KeyboardInterrupt())) == 130
    said = capsys.readouterr()
    assert "interrupted in round 2 at 01_kvm_memfd main; the same command goes on" in said.err
    assert said.out.startswith("Soak stage-1-vmm-no-controls: 1 round;")
    assert command("--no-controls", "--table") == 0
    assert capsys.readouterr().out == said.out
    assert command(*words) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Soak stage-1-vmm-no-controls: 3 rounds;")
    assert said.err.count("round ") == 2
    assert command(*words) == 0
    assert "round" not in capsys.readouterr().err


def test_the_command_after_another_commit(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--no-controls", "--rounds", "1")
    assert command(*words, found=(FAIL,)) == 1
    capsys.readouterr()
    assert command(*words, commit="c2") == 2
    assert "begun at commit c1, and this is c2: --fresh begins anew" in sentence(capsys)
    assert command("--no-controls", "--table", commit="c2") == 1
    assert command(*words, "--fresh", commit="c2") == 0
    assert command(*words, "--name", "other", found=(DISTURBED,)) == 3


def test_other_options_are_another_soak(command: Command, root: Path) -> None:
    words = ("--no-controls", "--rounds", "1")
    for more in ((), ("--accel", "tcg"), ("--vcpus", "2"), ("--series", "none")):
        assert command(*words, *more) == 0
    assert len([*root.iterdir()]) == 4
    assert command(*words, "--name", "mine") == 0
    assert command(*words, "--name", "mine", "--vcpus", "2") == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--name", "../x"], "cannot name a folder"),
        (["--table"], "there is no soak 'all'; there are: none"),
        (["--stage", "9"], "there is no stage 9"),
        (["--stage", "2", "--workload", "qemu"], "no stage of these has a workload 'qemu'"),
    ],
)
def test_what_cannot_be_meant(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["soak", *words]) == 2
    assert says in sentence(capsys)


def test_help_tells_the_exit_statuses() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "common", "soak", "--help"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{128 + signal.SIGINT} interrupted" in done.stdout
