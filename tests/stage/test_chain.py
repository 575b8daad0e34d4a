# SPDX-License-Identifier: GPL-2.0-only
"""Chains of updates: judged update by update and as a whole, on recorded ones of two updates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.cli.parser import build_parser
from common.errors import UsageError
from common.guest.evidence import RamEvidence
from common.judge.stored_run import opened
from common.judge.verdict import judge_control, judge_trial
from common.record.evidence import Trial, collect
from common.record.setting import LONGEST
from common.stage.chain import updates
from common.stage.configured import configured, configured_as_recorded
from common.stage.declaration import Stage
from common.stage.loading import load_stage
from tests.recorded_trial import KVM_MEMFD, RECORDED
from tests.stored import store_run

CHAIN = RECORDED / "chain"


def load(name: str) -> Trial:
    return collect(CHAIN / name, witness=load_stage(1).witness)


@pytest.fixture
def trial() -> Trial:
    return load("main")


@pytest.fixture
def stage(trial: Trial) -> Stage:
    return configured_as_recorded(load_stage(1), trial.setting)


def test_each_update_has_its_own_count_of_dropped_translations(trial: Trial) -> None:
    counted = trial.model_copy(update={"tb_invalidations": (8832, 92247)})
    assert [view.tb_invalidations for view in updates(counted)] == [(8832,), (92247,)]


def fallen(trial: Trial, stage: Stage) -> dict[str, str]:
    answers = judge_trial(trial, stage).answers
    return {a.check: a.outcome.seen for a in answers if a.outcome.status != "PASS"}


def with_fact(trial: Trial, side: int, key: str, value: str) -> Trial:
    sides = list(trial.sides)
    assert key in sides[side].facts
    facts = sides[side].facts | {key: value}
    sides[side] = sides[side].model_copy(update={"facts": facts})
    return trial.model_copy(update={"sides": tuple(sides)})


def test_a_chain_passes_in_every_update(trial: Trial, stage: Stage) -> None:
    verdict = judge_trial(trial, stage)
    count = len(load_stage(1).checks) + 2
    assert (verdict.status, verdict.why) == ("PASS", f"{count} checks")


def test_the_second_update_goes_back(trial: Trial) -> None:
    first, second = updates(trial)
    assert (first.update, second.update) == (1, 2)
    assert second.setting.outgoing == first.setting.incoming
    assert second.setting.incoming == first.setting.outgoing
    assert [h.count for h in first.console.handovers] == [1]
    assert [h.count for h in second.console.handovers] == [2]
    assert [side.name for side in second.sides] == ["outgoing", "incoming"]
    assert second.seen(RamEvidence).ram.sha256 != first.seen(RamEvidence).ram.sha256


@pytest.mark.parametrize(
    ("side", "key", "value", "falls"),
    [
        (3, "ram.pages_different", "1", "ram_equal"),
        (2, "load.guest_steps", "0", "chain_alive"),
        (3, "guest.0.counter_at_load", "7", "counter"),
        (1, "kernel.build_id", "0" * 40, "build_ids"),
        (2, "kernel.taint_at_end", "512", "not_tainted"),
    ],
)
def test_a_fault_in_one_update_fails_the_chain(
    trial: Trial, stage: Stage, side: int, key: str, value: str, falls: str
) -> None:
    seen = fallen(with_fact(trial, side, key, value), stage)
    assert falls in seen
    if falls != "chain_alive":
        assert seen[falls].startswith(f"update {side // 2 + 1}: ")


@pytest.mark.parametrize(
    ("counts", "numbers"),
    [((1, 1), (1, 2)), ((1, 2), (1, 1)), ((1, 3), (1, 3)), ((1, 2, 3), (1, 2, 3)), ((1,), (1,))],
)
def test_a_wrong_count_is_noticed(
    trial: Trial, stage: Stage, counts: tuple[int, ...], numbers: tuple[int, ...]
) -> None:
    given = trial.console.handovers
    handovers = tuple(
        given[min(n, 1)].model_copy(update={"count": count}) for n, count in enumerate(counts)
    )
    seen = {"handovers": handovers, "luo_numbers": numbers}
    changed = trial.model_copy(update={"console": trial.console.model_copy(update=seen)})
    found = fallen(changed, stage)
    assert "chain_counts" in found
    assert {"kho_exec_from", "luo_number"} & found.keys()


def test_a_chain_that_stopped_half_way_is_none(trial: Trial, stage: Stage) -> None:
    half = trial.model_copy(update={"sides": trial.sides[:2]})
    assert {"both_sides_ended_well", "chain_alive"} <= fallen(half, stage).keys()


def test_its_witness_from_outside_is_asked_for_each_update(trial: Trial, stage: Stage) -> None:
    first = trial.witness.model_copy(update={"later": ()})
    blind = trial.model_copy(update={"witness": first})
    unseen = fallen(blind, stage)
    assert {"host_saw_ram", "host_saw_guest", "host_saw_guest_run", "host_saw_files"} <= set(unseen)
    assert set(unseen.values()) == {"update 2: no data"}


@pytest.mark.parametrize("name", ["uncounted-update", "guest-asleep"])
def test_its_controls_fail_for_their_reason(stage: Stage, name: str) -> None:
    verdict = judge_control(load(f"control-{name}"), stage.control(name), stage)
    assert verdict.good, verdict.why


def test_other_controls_are_of_one_update(stage: Stage) -> None:
    """In a run with a chain they are judged as ever: nothing of the chain is asked of them."""
    flipped = collect(KVM_MEMFD / "control-byte-flipped", witness=stage.witness)
    verdict = judge_control(flipped, stage.control("byte-flipped"), stage)
    assert verdict.good, verdict.why
    assert not {"chain_counts", "chain_alive"} & {answer.check for answer in verdict.answers}


def test_every_check_of_the_chain_has_a_control_that_breaks_it(stage: Stage) -> None:
    broken = frozenset().union(*(control.breaks for control in stage.chain_controls))
    assert {check.name for check in stage.claims[-1].checks} <= broken


def test_a_stored_chain_is_judged_as_one(runs: Path) -> None:
    folder = store_run(
        runs / "chain",
        (CHAIN / "control-guest-asleep", "control-guest-asleep"),
        (CHAIN / "main", "main"),
    )
    with opened(folder.name) as one:
        assert one.stage.config.chain == 2
        assert one.verdict.status == "PASS", one.verdict.why
        assert all(control.good for control in one.verdict.controls[:1])
    setting = json.loads((folder / "main" / "trial.json").read_text())
    assert setting["chain"] == 2


def test_a_longer_chain_has_more_memory(stage: Stage) -> None:
    options = {option.parameter: option.default for option in stage.options}
    sizes = [configured(load_stage(1), chain=n).size(options).machine_mib for n in (1, 2, LONGEST)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert "kho_scratch=16M,74M,16M" in stage.cmdline


def test_what_has_no_chain_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="stage 2 goes through one update: it has no --chain"):
        configured(load_stage(2), chain=2)
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "1", "--chain", "99"])
    assert f"99 updates are more than {LONGEST}" in capsys.readouterr().err
