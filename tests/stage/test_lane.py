# SPDX-License-Identifier: GPL-2.0-only
"""The debug and the server lane: what they change of a stage, and what is asked there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.errors import UsageError
from common.judge.verdict import judge_trial
from common.record.evidence import Trial
from common.stage.declaration import Stage
from common.stage.lane import in_lane
from common.stage.loading import load_stage, stage_folders
from common.stage.series import kernel_needs

Lines = list[tuple[int, str]]
Recorded = Callable[..., Trial]
ON = "kasan lockdep kmemleak"


@pytest.fixture(params=sorted(stage_folders()))
def stage(request: pytest.FixtureRequest) -> Stage:
    return load_stage(request.param)


def test_the_default_lane_is_the_stage_itself(stage: Stage) -> None:
    assert in_lane(stage, "default") is stage


def test_the_debug_lane_is_slower_larger_and_asks_more(stage: Stage) -> None:
    debug = in_lane(stage, "debug")
    options = {option.parameter: option.default for option in debug.options}
    assert debug.size(options).machine_mib > 1536
    assert [p.name for p in kernel_needs(debug).certain][-1] == "debug.config"
    assert [word for word in debug.cmdline if word.startswith("kho_scratch=")] == [
        "kho_scratch=32M,640M,32M"
    ]
    assert {check.name for check in debug.checks} - {check.name for check in stage.checks} == {
        "debug_kernels",
        "no_leak",
    }


def test_its_controls_are_the_stages(stage: Stage) -> None:
    names = {control.name for control in in_lane(stage, "debug").controls}
    assert names == stage.debug_controls != set()


def test_qemu_is_refused_there() -> None:
    with pytest.raises(UsageError, match="the debug lane has no --workload qemu"):
        in_lane(load_stage(1, "qemu"), "debug")


def saying(outgoing: str, incoming: str, debug: str = ON) -> Callable[[Lines], Lines]:
    """Facts of both sides, before the line that each ends with."""

    def edit(lines: Lines) -> Lines:
        said: Lines = []
        for t, text in lines:
            if text in ("# kexec", "# done"):
                objects = outgoing if text == "# kexec" else incoming
                said += [(t, f"# kernel.debug={debug}"), (t, f"# kmemleak.objects={objects}")]
            said.append((t, text))
        return said

    return edit


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (saying("0", "0"), set()),
        (saying("0", "2"), {"no_leak"}),
        (saying("1", "0"), {"no_leak"}),
        (saying("0", "0", debug="kasan kmemleak"), {"debug_kernels"}),
        (lambda lines: lines, {"debug_kernels", "no_leak"}),
    ],
)
def test_its_claim(recorded: Recorded, edit: Callable[[Lines], Lines], expected: set[str]) -> None:
    answers = judge_trial(
        recorded("main", line="dialogue", edit=edit), in_lane(load_stage(1), "debug")
    ).answers
    assert {a.check for a in answers if a.outcome.status != "PASS"} == expected


def test_the_server_lane_is_larger_and_has_the_controls_that_need_no_kernel(stage: Stage) -> None:
    server = in_lane(stage, "server")
    options = {option.parameter: option.default for option in server.options}
    assert server.size(options).machine_mib == stage.size(options).machine_mib + 768
    assert [p.name for p in kernel_needs(server).certain][-1] == "server.config"
    assert server.cmdline == (*stage.cmdline, "numa=fake=2", "numa_balancing=disable")
    assert {c.name for c in server.controls} == {
        c.name for c in stage.controls if not c.own_kernels
    }


def nodes(online: str, late: tuple[int, ...]) -> Callable[[Trial], Trial]:
    """Both sides with these nodes, and the incoming kernel with struct pages set up late in them;
    the outgoing one in both."""

    def change(trial: Trial) -> Trial:
        first, second = (boot.t for boot in trial.console.boots)
        pages = [(first + 1, 0), (first + 1, 1), *((second + 1, node) for node in late)]
        sides = [
            side.model_copy(update={"facts": side.facts | {"kernel.nodes": online}})
            for side in trial.sides
        ]
        console = trial.console.model_copy(update={"late_pages": tuple(pages)})
        return trial.model_copy(update={"console": console, "sides": tuple(sides)})

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (nodes("0-1", (0, 1)), set()),
        (nodes("0-1", (1, 0)), set()),
        (nodes("0-1", (0,)), {"server_kernels"}),
        (nodes("0", (0, 1)), {"server_kernels"}),
        (lambda trial: trial, {"server_kernels"}),
    ],
)
def test_what_the_server_lane_asks(
    recorded: Recorded, change: Callable[[Trial], Trial], expected: set[str]
) -> None:
    answers = judge_trial(change(recorded("main")), in_lane(load_stage(1), "server")).answers
    assert {a.check for a in answers if a.outcome.status != "PASS"} == expected
