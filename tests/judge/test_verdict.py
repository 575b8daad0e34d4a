# SPDX-License-Identifier: GPL-2.0-only
"""The judge, on recorded trials of stage 1 and on damaged copies of them.

tests/recorded/ holds the raw files of real trials (see its README). Each test edits
one line of evidence and asks whether the right check, and no other, falls.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.guest.checks import timer_rate
from common.judge.verdict import judge, judge_control, judge_trial
from common.record.evidence import Run, Trial
from common.stage.loading import load_stage

STAGE = load_stage(1)
Lines = list[tuple[int, str]]
Recorded = Callable[..., Trial]


def fallen(trial: Trial) -> list[str]:
    answers = judge_trial(trial, STAGE).answers
    return [answer.check for answer in answers if answer.outcome.status != "PASS"]


def replacing(old: str, new: str) -> Callable[[Lines], Lines]:
    def edit(lines: Lines) -> Lines:
        edited = [(t, text.replace(old, new)) for t, text in lines]
        assert edited != lines, f"{old!r} is not in the recording"
        return edited

    return edit


def without(part: str) -> Callable[[Lines], Lines]:
    def edit(lines: Lines) -> Lines:
        left = [(t, text) for t, text in lines if part not in text]
        assert left != lines, f"{part!r} is not in the recording"
        return left

    return edit


def up_to(part: str) -> Callable[[Lines], Lines]:
    def edit(lines: Lines) -> Lines:
        end = next(n for n, (_, text) in enumerate(lines) if part in text)
        return lines[: end + 1]

    return edit


def test_the_recording_passes(recorded: Recorded) -> None:
    verdict = judge_trial(recorded("main"), STAGE)
    assert (verdict.status, fallen(recorded("main"))) == ("PASS", [])


def test_panic_in_the_gap_is_a_crash(recorded: Recorded) -> None:
    def panic(lines: Lines) -> Lines:
        return [
            *up_to("Starting new kernel")(lines),
            (lines[-1][0], "Kernel panic - not syncing: x"),
        ]

    trial = recorded(
        "main", edit=panic, setting={"ended": "crashed", "ended_detail": "kexec: Kernel panic"}
    )
    verdict = judge_trial(trial, STAGE)
    assert (verdict.status, verdict.why) == ("CRASHED", "kexec: Kernel panic")
    assert "no_splat" in fallen(trial)


def test_a_panic_is_a_crash_even_if_the_harness_missed_it(recorded: Recorded) -> None:
    trial = recorded("main", edit=lambda lines: [*lines, (lines[-1][0], "Oops: 0002 [#1] SMP")])
    assert judge_trial(trial, STAGE).status == "CRASHED"


def test_silent_machine_is_a_timeout(recorded: Recorded) -> None:
    trial = recorded(
        "main",
        line="dialogue",
        edit=up_to("# kexec"),
        setting={"ended": "timeout", "ended_detail": "kexec: nothing on the dialogue for 20 s"},
    )
    assert judge_trial(trial, STAGE).status == "TIMEOUT"


def test_truncated_dialogue_never_passes(recorded: Recorded) -> None:
    for cut in ("# kexec", "side=incoming", "retrieve.ram=", "finish="):
        trial = recorded("main", line="dialogue", edit=up_to(cut))
        assert judge_trial(trial, STAGE).status == "FAIL"
        assert "both_sides_ended_well" in fallen(trial)


def test_garbage_on_the_dialogue_falls(recorded: Recorded) -> None:
    trial = recorded("main", line="dialogue", edit=replacing("# t.loaded=", "\\xff\\x00#t.loaded="))
    assert fallen(trial) == ["dialogue_complete"]


def test_dialogue_of_another_run_falls(recorded: Recorded) -> None:
    def other(lines: list[tuple[int, str]]) -> list[tuple[int, str]]:
        return [(t, "# nonce=" + "0" * 16 if text[:8] == "# nonce=" else text) for t, text in lines]

    assert fallen(recorded("main", line="dialogue", edit=other)) == ["dialogue_complete"]


@pytest.mark.parametrize(
    ("line", "old", "new", "checks"),
    [
        ("console", "KHO: exec from", "KHO: no exec", ["kho_exec_from"]),
        ("console", "(count 1)", "(count 2)", ["kho_exec_from"]),
        ("console", "liveupdate number: 1", "liveupdate number: 2", ["luo_number"]),
        ("console", "Starting new kernel", "", ["console_order"]),
        ("console", "Run /init as init process", "SeaBIOS (version 1.16)", ["console_order"]),
        ("console", "Run /init as init process", "BUG: Bad page state", ["no_splat"]),
        ("dialogue", "# finish=0", "# finish=-16", ["session_finished"]),
        ("dialogue", "retrieve.ram=0", "retrieve.ram=-2", ["memfds_retrieved"]),
        ("dialogue", "ram.pages_different=0", "ram.pages_different=1", ["ram_equal"]),
        ("dialogue", "pfn.moved=0", "pfn.moved=3", ["same_pages"]),
        ("dialogue", "guest.0.errors.gpr=0", "guest.0.errors.gpr=1", ["registers"]),
        ("dialogue", "guest.0.errors.memory=0", "guest.0.errors.memory=1", ["guest_content"]),
        ("dialogue", "guest.0.errors.timer=0", "guest.0.errors.timer=1", ["guest_content"]),
        ("dialogue", "ok 3 ", "not ok 3 ", ["outgoing_rules", "incoming_rules"]),
        ("dialogue", "kernel.taint=0", "kernel.taint=512", ["not_tainted"]),
        ("dialogue", "preserve.guest_steps=", "preserve.guest_steps=0#", ["guest_ran_on"]),
    ],
)
def test_one_line_of_evidence_one_check(
    recorded: Recorded, line: str, old: str, new: str, checks: list[str]
) -> None:
    assert fallen(recorded("main", line=line, edit=replacing(old, new))) == checks


def test_a_missing_fact_is_never_a_pass(recorded: Recorded) -> None:
    for key, check in (
        ("ram.digest", "ram_equal"),
        ("ram.range.63", "ram_equal"),
        ("pfn.extent.1=", "same_pages"),
        ("guest.0.errors.gpr", "registers"),
        ("guest.0.counter_at_load", "counter"),
        ("kernel.build_id", "build_ids"),
        ("guest.0.ticks", "guest_ticks"),
    ):
        trial = recorded("main", line="dialogue", edit=without(f"# {key}"))
        assert check in fallen(trial)


def timer_readings(counts: str) -> Callable[[Lines], Lines]:
    """Counts of the outgoing side's readings, 1000 units of the counter each."""

    def edit(lines: Lines) -> Lines:
        at = next(n for n, (_, text) in enumerate(lines) if "guest.0.timer_rate=" in text)
        readings = " ".join(f"{count}:1000" for count in counts.split())
        return [*lines[:at], (lines[at][0], f"# guest.0.timer_rate={readings}"), *lines[at + 1 :]]

    return edit


def test_a_timer_counts_as_most_readings_say(recorded: Recorded) -> None:
    good = recorded("main")
    rate = timer_rate(good, 0)
    most = timer_readings("430 900 20 433 435 1 713")
    assert rate and fallen(good) == fallen(recorded("main", line="dialogue", edit=most)) == []
    halved = timer_readings("215 900 20 217 216 1 713")
    assert fallen(recorded("main", line="dialogue", edit=halved)) == ["guest_ticks"]


def test_readings_of_which_no_three_agree_say_nothing(recorded: Recorded) -> None:
    trial = recorded("main", line="dialogue", edit=timer_readings("430 900 20 433 77 1 713"))
    assert (timer_rate(trial, 0), fallen(trial)) == (None, ["guest_ticks"])


def test_qemu_replaced_falls(recorded: Recorded) -> None:
    trial = recorded("main", setting={"process_at_end": {"pid": 1, "start": 1}})
    assert fallen(trial) == ["one_qemu"]


def test_a_control_that_passes_breaks_the_stage(recorded: Recorded) -> None:
    trial = recorded("main", setting={"name": "control-byte-flipped", "control": "byte-flipped"})
    control = STAGE.control("byte-flipped")
    assert judge_control(trial, control, STAGE).status == "PASSED"
    verdict = judge(run_of(recorded("main"), trial), STAGE)
    assert (verdict.status, int(verdict.exit)) == ("BROKEN", 1)


def test_a_control_that_fails_for_another_reason_breaks_the_stage(recorded: Recorded) -> None:
    trial = recorded(
        "main",
        line="dialogue",
        edit=replacing("guest.0.errors.vector=0", "guest.0.errors.vector=1"),
        setting={"name": "control-register-corrupted", "control": "register-corrupted"},
    )
    verdict = judge_control(trial, STAGE.control("register-corrupted"), STAGE)
    assert verdict.status == "PASSED"
    trial = recorded("control-byte-flipped", setting={"control": "pages-copied"})
    assert not judge_control(trial, STAGE.control("pages-copied"), STAGE).good


def test_recorded_controls(recorded: Recorded) -> None:
    for name in ("byte-flipped", "firmware-reboot", "panic", "kho-off"):
        verdict = judge_control(recorded(f"control-{name}"), STAGE.control(name), STAGE)
        assert verdict.good, verdict.why


def test_firmware_reboot_is_named(recorded: Recorded) -> None:
    trial = recorded("control-firmware-reboot")
    assert {"no_reset", "console_order", "kho_exec_from"} <= set(fallen(trial))


def test_no_trials_is_an_error() -> None:
    verdict = judge(run_of(), STAGE)
    assert (verdict.status, int(verdict.exit)) == ("ERROR", 3)


def test_the_verdict_is_a_pure_function(recorded: Recorded) -> None:
    run, again = (run_of(recorded("main"), recorded("control-byte-flipped")) for _ in range(2))
    assert run == again
    assert judge(run, STAGE) == judge(again, STAGE)


def run_of(*trials: Trial) -> Run:
    return Run(stage=1, tool="t", commit="c", started="s", command=("run", "1"), trials=trials)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # A page less for the incoming kernel, and a kernel that prints no map.
        ("ffff]  System RAM", "efff]  System RAM"),
        ("BIOS-e820: [mem", "e820: [mem"),
    ],
)
def test_an_incoming_kernel_with_another_memory_map_falls(
    recorded: Recorded, old: str, new: str
) -> None:
    def edit(lines: Lines) -> Lines:
        begin = max(n for n, (_, text) in enumerate(lines) if "Linux version " in text)
        return [*lines[:begin], *((t, text.replace(old, new)) for t, text in lines[begin:])]

    assert fallen(recorded("main", line="console", edit=edit)) == ["same_memory_map"]
