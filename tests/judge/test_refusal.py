# SPDX-License-Identifier: GPL-2.0-only
"""An incoming kernel that refuses the handover: a result of its own, not a crash, not a failure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.judge.verdict import judge_control, judge_trial
from common.record.console import parse
from common.record.dialogue import Line
from common.record.evidence import Trial
from common.stage.loading import load_stage
from common.suites.matrix.cells import Result, exit_of

Lines = list[tuple[int, str]]
# The words of Linux 7.3: kexec_handover.c, luo_core.c, luo_file.c
REFUSALS = (
    "KHO: setup: handover FDT (0x7e4000) is incompatible with 'kho-v4': -1",
    "KHO: kexec-metadata version 9 not supported (expected 1)",
    "luo: LUO state is incompatible with 'luo-v6'",
    "luo_file: No registered handler for compatible 'memfd-v1'",
    "luo: No registered handler for compatible 'memfd-v2'",
)


def said(text: str) -> Callable[[Lines], Lines]:
    """The line on the console after the kexec, then the end of it all."""

    def edit(lines: Lines) -> Lines:
        cut = next(n for n, line in enumerate(lines) if "KHO: found kexec handover data" in line[1])
        t = lines[cut][0]
        panic = "[    0.4] Kernel panic - not syncing: The incoming tree failed to initialize"
        return [*lines[:cut], (t, f"[    0.3] {text}"), (t, panic)]

    return edit


@pytest.mark.parametrize("text", REFUSALS)
def test_each_refusal_is_named(recorded: Callable[..., Trial], text: str) -> None:
    trial = recorded("main", edit=said(text), setting={"ended": "crashed"})
    verdict = judge_trial(trial, load_stage(1))
    assert verdict.status == "REFUSED"
    assert verdict.why == f"the incoming kernel refuses the handover: {text}"


def test_a_panic_without_a_refusal_is_a_crash(recorded: Callable[..., Trial]) -> None:
    trial = recorded("main", edit=said("something else"), setting={"ended": "crashed"})
    assert judge_trial(trial, load_stage(1)).status == "CRASHED"


def test_what_is_said_of_something_else_is_no_refusal() -> None:
    text = "foo: LUO state is incompatible with 'luo-v6'"
    assert parse([Line(t=0, text=text)]).refusals == ()


def test_a_control_is_not_excused_by_it(recorded: Callable[..., Trial]) -> None:
    stage = load_stage(1)
    trial = recorded("control-byte-flipped", edit=said(REFUSALS[2]))
    assert not judge_control(trial, stage.control("byte-flipped"), stage).good


def test_a_gate_falls_with_it_unless_it_is_asked_for() -> None:
    refused = Result("stage-1.a-to-b.main", "REFUSED", "", {})
    assert exit_of([refused], refusal_ok=False) == 1
    assert exit_of([refused], refusal_ok=True) == 0
