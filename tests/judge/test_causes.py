# SPDX-License-Identifier: GPL-2.0-only
"""Of several things that are wrong the first is told first: recorded trials, edited."""

from __future__ import annotations

from collections.abc import Callable

from common.judge.verdict import TrialVerdict, judge_trial
from common.record.evidence import Trial
from common.stage.loading import load_stage
from tests.judge.test_verdict import Lines, replacing

STAGE = load_stage(1)
Recorded = Callable[..., Trial]
WARNING = "WARNING: mm/memfd_luo.c:300 at memfd_luo_preserve+0x1/0x2, CPU#1: init/37"
BAIL = "outgoing side: luo_preserve_fd: EINVAL"


def both(first: Trial, second: Trial) -> Trial:
    """The console of one, the dialogue of the other."""
    return first.model_copy(update={"sides": second.sides})


def warned(lines: Lines, at: int) -> Lines:
    return sorted([*lines, (at, WARNING)], key=lambda line: line[0])


def bailed(lines: Lines) -> Lines:
    end = next(n for n, (_, text) in enumerate(lines) if text.startswith("# preserve.ram.us"))
    return [*lines[:end], (lines[end][0], f"# bail {BAIL}")]


def why(trial: Trial) -> TrialVerdict:
    return judge_trial(trial, STAGE)


def the_bail(recorded: Recorded, **setting: object) -> Trial:
    return recorded(
        "main",
        line="dialogue",
        edit=bailed,
        setting={"ended": "bail", "ended_detail": BAIL} | setting,
    )


def test_a_warning_before_a_bail_is_the_cause(recorded: Recorded) -> None:
    trial = the_bail(recorded)
    at = trial.sides[0].started
    warned_trial = recorded("main", edit=lambda lines: warned(lines, at))
    verdict = why(both(warned_trial, trial).model_copy(update={"setting": trial.setting}))
    number = warned_trial.console.splats[0].number
    assert verdict.status == "FAIL"
    assert verdict.why.startswith(
        f"{WARNING} (console line {number}); then outgoing side gave up: {BAIL};"
        " then both_sides_ended_well: "
    )


def test_a_warning_after_a_bail_only_follows(recorded: Recorded) -> None:
    trial = the_bail(recorded)
    at = trial.sides[0].ended + 1
    warned_trial = recorded("main", edit=lambda lines: warned(lines, at))
    verdict = why(both(warned_trial, trial).model_copy(update={"setting": trial.setting}))
    assert verdict.why.startswith(f"outgoing side gave up: {BAIL}; then {WARNING}")


def test_a_broken_rule_before_what_follows_of_it(recorded: Recorded) -> None:
    def edit(lines: Lines) -> Lines:
        return bailed(replacing("ok 2 ", "not ok 2 ")(lines))

    trial = recorded(
        "main", line="dialogue", edit=edit, setting={"ended": "bail", "ended_detail": BAIL}
    )
    name = trial.sides[0].results[1].name
    assert why(trial).why.startswith(
        f"outgoing rule {name} does not hold; then outgoing side gave up: {BAIL}; then "
    )


def test_a_warning_before_a_silence(recorded: Recorded) -> None:
    setting = {"ended": "timeout", "ended_detail": "incoming kernel: nothing for 20 s"}
    trial = recorded("main", edit=lambda lines: warned(lines, lines[50][0]), setting=setting)
    verdict = why(trial)
    assert verdict.status == "TIMEOUT"
    assert verdict.why.startswith(WARNING)
    assert verdict.why.endswith("; then incoming kernel: nothing for 20 s")


def test_a_warning_before_an_oops(recorded: Recorded) -> None:
    def edit(lines: Lines) -> Lines:
        oops = [
            "BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "#PF: supervisor write access in kernel mode",
            "Oops: Oops: 0002 [#1] SMP",
        ]
        last = lines[-1][0]
        return [*warned(lines, lines[50][0]), *((last + n, text) for n, text in enumerate(oops))]

    setting = {"ended": "crashed", "ended_detail": "incoming kernel: Oops: Oops: 0002 [#1] SMP"}
    verdict = why(recorded("main", edit=edit, setting=setting))
    assert verdict.status == "CRASHED"
    assert verdict.why.startswith(WARNING)
    assert verdict.why.endswith("; then incoming kernel: Oops: Oops: 0002 [#1] SMP")


def test_a_warning_alone_is_told_once(recorded: Recorded) -> None:
    verdict = why(recorded("main", edit=lambda lines: warned(lines, lines[50][0])))
    assert verdict.why.startswith("no_splat: expected no warning")
    assert verdict.why.count(WARNING) == 1
