# SPDX-License-Identifier: GPL-2.0-only
"""A guest that QEMU's TCG keeps standing, and a clock that it lets run away, are no faults of a
kernel; a guest that sleeps, or dies, is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.judge.verdict import judge, judge_control, judge_trial
from common.record.evidence import Run
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, Edit, RecordedTrial, added

STAGE = load_stage(1)
_RAN = "R on CPU 0, then R on CPU 1"
_STOOD = "the guest stood still although KVM ran it"


@pytest.fixture
def recorded(tmp_path: Path) -> RecordedTrial:
    return RecordedTrial(STAGE, RECORDED / "kvm_memfd" / "main", tmp_path)


def stood(thread: str, accelerator: str = "tcg", more: int = 2_000_000_000) -> Edit:
    """A second gap that is longer by `more` ticks, and what the vCPU's thread did meanwhile."""

    def edit(folder: Path) -> None:
        added("guest.0.resume.next_gap_tsc", more)(folder)
        lines = (folder / "dialogue.jsonl").read_text().splitlines(keepends=True)
        at = next(n for n, line in enumerate(lines) if "resume.next_gap_tsc=" in line)
        lines.insert(at, json.dumps([json.loads(lines[at])[0], f"# still.thread={thread}"]) + "\n")
        (folder / "dialogue.jsonl").write_text("".join(lines))
        on(accelerator)(folder)

    return edit


def on(accelerator: str) -> Edit:
    def edit(folder: Path) -> None:
        setting = json.loads((folder / "trial.json").read_text())
        setting["host"]["accelerator"] = accelerator
        (folder / "trial.json").write_text(json.dumps(setting))

    return edit


def died(*, before: bool = True) -> Edit:
    """The outgoing side, or the incoming one, ends with KVM_EXIT_SHUTDOWN."""

    def edit(folder: Path) -> None:
        lines = (folder / "dialogue.jsonl").read_text().splitlines(keepends=True)
        word = "# await pause" if before else "# at retrieved"
        last = next(n for n, line in enumerate(lines) if word in line)
        bail = "# bail vmm.c:213: state != VCPU_STOPPED: vCPU 0: KVM_RUN = 0, exit reason 8"
        lines[last + 1 :] = [json.dumps([json.loads(lines[last])[0], bail]) + "\n"]
        (folder / "dialogue.jsonl").write_text("".join(lines))
        setting = json.loads((folder / "trial.json").read_text())
        setting |= {"ended": "bail", "ended_detail": bail.removeprefix("# bail ")}
        (folder / "trial.json").write_text(json.dumps(setting))
        if before:
            rows = (folder / "console.jsonl").read_text().splitlines(keepends=True)
            kexec = next(n for n, row in enumerate(rows) if "Starting new kernel" in row)
            (folder / "console.jsonl").write_text("".join(rows[:kexec]))
        on("tcg")(folder)

    return edit


def stalled(ticks: int, accelerator: str = "tcg") -> Edit:
    """The incoming kernel's RCU complains at last, of a CPU that took so many ticks in 21 s."""

    def edit(folder: Path) -> None:
        lines = (folder / "console.jsonl").read_text().splitlines(keepends=True)
        t = json.loads(lines[-1])[0]
        said = (
            "[   25.861186] rcu: INFO: rcu_sched self-detected stall on CPU",
            f"[   25.862114] rcu: \t1-...0: ({ticks} ticks this GP) idle=1fac/1/0x4000000000000000"
            " softirq=124/126 fqs=2621",
            "[   25.862490] rcu: \t(t=5250 jiffies g=-915 q=55 ncpus=2)",
        )
        lines += [json.dumps([t, text]) + "\n" for text in said]
        (folder / "console.jsonl").write_text("".join(lines))
        on(accelerator)(folder)

    return edit


@pytest.mark.parametrize(
    ("edit", "status", "words"),
    [
        (stood(_RAN), "DISTURBED", _STOOD),
        (stood(_RAN, "kvm"), "FAIL", "guest_never_still: "),
        (
            stood("I on CPU 0 in process_timeout, then I on CPU 0 in process_timeout"),
            "FAIL",
            "in process_timeout",
        ),
        (stood("R on CPU 0, then D on CPU 0 in folio_wait_bit"), "FAIL", "in folio_wait_bit"),
        (stood(_RAN, more=1), "PASS", ""),
        (died(), "FAIL", "both_sides_ended_well: "),
        (died(before=False), "FAIL", "both_sides_ended_well: "),
        (stalled(3953206), "DISTURBED", "CPU 1 took 3953206 ticks in 5250 jiffies"),
        (stalled(3953206, "kvm"), "FAIL", "no_splat: "),
        (stalled(5249), "FAIL", "no_splat: "),
    ],
    ids=[
        "kept",
        "by KVM",
        "asleep",
        "blocked",
        "not for long",
        "died",
        "after the kexec",
        "clock ran away",
        "clock ran away in KVM",
        "stalled",
    ],
)
def test_what_befell_a_guest(recorded: RecordedTrial, edit: Edit, status: str, words: str) -> None:
    verdict = judge_trial(recorded(edit), STAGE)
    assert (verdict.status, words in verdict.why) == (status, True), verdict.why


@pytest.mark.parametrize("edit", [stood(_RAN), stalled(3953206)])
def test_three_times_is_no_chance(recorded: RecordedTrial, edit: Edit) -> None:
    trial = recorded(edit)
    attempts = [
        trial.model_copy(update={"setting": trial.setting.model_copy(update={"attempt": n})})
        for n in (1, 2, 3)
    ]
    run = Run.model_construct(trials=tuple(attempts))
    assert (
        judge(run.model_copy(update={"trials": tuple(attempts[:2])}), STAGE).status == "DISTURBED"
    )
    verdict = judge(run, STAGE)
    assert (verdict.status, "which is no fault of QEMU's" in verdict.why) == ("FAIL", True)


def test_a_control_that_ended_early_is_not_called_passed(recorded: RecordedTrial) -> None:
    """What it must break it had no time to break."""
    control = STAGE.control("timer-dropped")
    verdict = judge_control(recorded(died()), control, STAGE)
    assert (verdict.status, "both_sides_ended_well: " in verdict.why) == ("WRONG REASON", True)
