# SPDX-License-Identifier: GPL-2.0-only
"""DISTURBED: what the host, or QEMU, corrupted is no failure, no pass, and no hiding place.

Recorded trials, to which a host's log is added that says when the host did not run whom.
"""

from __future__ import annotations

import array
import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from common.checks.controls import reason
from common.checks.live_update import fact_is
from common.checks.model import Control
from common.dma.frames import Landing, read_landed, write_landed
from common.judge.verdict import disturbed, judge, judge_control, judge_trial
from common.record import console
from common.record.evidence import Run, Trial
from common.record.stored_file import read_stamped
from common.report.host import attempts, disturbed_attempts, host_lines
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, Edit, RecordedTrial, added, said

STAGE_1, STAGE_2 = load_stage(1), load_stage(2)
HERE = Path(__file__).parent
MS = 1_000_000
Loader = Callable[..., Trial]


@pytest.fixture
def trial_2(tmp_path: Path) -> Loader:
    return RecordedTrial(STAGE_2, RECORDED / "vfio_noiommu" / "main", tmp_path)


@pytest.fixture
def trial_3(tmp_path: Path) -> Loader:
    return RecordedTrial(load_stage(3), RECORDED / "iommufd" / "main", tmp_path)


@pytest.fixture
def trial_1(tmp_path: Path) -> Loader:
    return RecordedTrial(STAGE_1, RECORDED / "kvm_memfd" / "main", tmp_path)


def kexec(folder: Path) -> int:
    return console.parse(read_stamped(folder / "console.jsonl")).kexecs[0]


def host(folder: Path, **away: tuple[int, int]) -> None:
    """A host's log; who did not run from when to when, in ms from the kexec."""
    zero, setting = kexec(folder), json.loads((folder / "trial.json").read_text())
    last = max((zero + end * MS for _, end in away.values()), default=0)
    first = min((zero + begin * MS for begin, _ in away.values()), default=zero)
    setting["ended_ns"] = max(setting["ended_ns"], last)
    setting["started_ns"] = min(setting["started_ns"], first)
    (folder / "trial.json").write_text(json.dumps(setting))
    rows = [
        {"t": t, "waits": {}, "pressure_us": 0, "steal_ms": 0.0, "suspended_ns": 0, "echoes": 9}
        for t in (setting["started_ns"], setting["ended_ns"])
    ]
    (folder / "host.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for who, (begin, end) in away.items():
        stretch = [zero + begin * MS, zero + end * MS]
        (folder / f"away-{who}.jsonl").write_text(json.dumps(stretch) + "\n")


def silenced(begin: int, end: int) -> Edit:
    """Nothing is seen from begin to end, in ms from the kexec; it all comes then."""

    def edit(folder: Path) -> None:
        zero, rows = kexec(folder), array.array("Q")
        late, seen = zero + end * MS, 0
        for one in read_landed(folder / "device-landed.bin"):
            held = zero + begin * MS < one.seen < late
            seen = max(seen + 1, late if held else one.seen)
            rows.extend((one.number, one.sent, seen))
        write_landed(folder / "device-landed.bin", rows)

    return edit


def edited(*edits: Edit, **away: tuple[int, int]) -> Edit:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)
        host(folder, **away)

    return edit


@pytest.mark.parametrize(
    ("away", "status"),
    [
        ({}, "FAIL"),
        ({"qemu": (299, 519)}, "PASS"),
        ({"watcher": (299, 519)}, "PASS"),
        ({"qemu": (299, 420), "watcher": (400, 519)}, "PASS"),
        # QEMU ran again a tenth of a second before the frames came: that is the device's.
        ({"qemu": (299, 420)}, "FAIL"),
        # It was silent before the host was away.
        ({"qemu": (410, 519)}, "FAIL"),
        # It was silent for 60 ms of it beside absences: it may have been for the rest, too.
        ({"qemu": (360, 519)}, "FAIL"),
        ({"qemu": (299, 380), "watcher": (440, 519)}, "FAIL"),
        ({"qemu": (305, 360), "watcher": (365, 519)}, "PASS"),
        # An absence in the middle of it, and one of somebody whom no frame needs.
        ({"qemu": (350, 460)}, "FAIL"),
        ({"harness": (299, 519)}, "FAIL"),
        # The sampler did not run: nobody knows whether QEMU did.
        ({"host": (299, 519)}, "PASS"),
        ({"host": (299, 400)}, "FAIL"),
        ({"host": (299, 400), "qemu": (395, 519)}, "PASS"),
    ],
)
def test_a_silence_is_the_devices_as_far_as_everybody_ran(
    trial_2: Loader, away: dict[str, tuple[int, int]], status: str
) -> None:
    trial = trial_2(edited(silenced(300, 520), **away))
    verdict = judge_trial(trial, STAGE_2)
    assert verdict.status == status, verdict.why


@pytest.mark.parametrize(
    ("edit", "status"),
    [(edited(silenced(300, 520), qemu=(299, 519)), "DISTURBED"), (edited(), "PASSED")],
)
def test_a_silence_that_the_host_may_have_made_does_not_say_that_a_control_was_missed(
    trial_2: Loader, edit: Edit, status: str
) -> None:
    """The kernel's silence of 150 ms lay within an absence once in 20, at load 8."""
    control = replace(STAGE_2.control("silenced"), breaks=frozenset({"dma_in_gap"}))
    assert judge_control(trial_2(edit), control, STAGE_2).status == status


def test_a_host_that_is_away_for_much_of_the_gap_leaves_nothing_to_judge(trial_2: Loader) -> None:
    """It was away for 400 ms of 1,636."""
    trial = trial_2(edited(silenced(300, 700), qemu=(299, 699)))
    verdict = judge_trial(trial, STAGE_2)
    assert verdict.status == "DISTURBED", verdict.why
    assert "not run for" in verdict.why
    assert disturbed(trial, STAGE_2)


def test_a_silence_of_less_than_the_bound_is_none(trial_2: Loader) -> None:
    verdict = judge_trial(trial_2(edited(silenced(300, 380))), STAGE_2)
    assert verdict.status == "PASS", verdict.why


def test_a_busy_host_raises_no_bound(trial_2: Loader) -> None:
    """What was silent before the kexec does not make a silence after it any better."""
    trial = trial_2(edited(silenced(-400, -200), silenced(300, 450)))
    assert judge_trial(trial, STAGE_2).status == "FAIL"


def test_where_nothing_was_sent_nothing_is_shown(trial_2: Loader) -> None:
    def pause(folder: Path) -> None:
        """The clock of both logs leaps by 0.6 s within the gap."""
        zero = kexec(folder)

        def later(t: int) -> int:
            return t + 600 * MS if t > zero + 300 * MS else t

        landed: list[Landing] = read_landed(folder / "device-landed.bin")
        rows = array.array("Q")
        for one in landed:
            rows.extend((one.number, later(one.sent), later(one.seen)))
        write_landed(folder / "device-landed.bin", rows)
        path = folder / "device-sent.bin"
        times = array.array("Q", path.read_bytes())
        path.write_bytes(array.array("Q", map(later, times)).tobytes())

    verdict = judge_trial(trial_2(edited(pause)), STAGE_2)
    answers = {a.check: a.outcome for a in verdict.answers}
    assert answers["no_silence"].status == "DISTURBED"
    assert "nothing was sent for" in answers["no_silence"].seen


def a_silent_abort(folder: Path) -> None:
    path = folder / "dialogue.jsonl"
    text = path.read_text()
    assert "times, 0 silent" in text
    path.write_text(text.replace("times, 0 silent", "times, 1 silent", 1))


@pytest.mark.parametrize(
    ("edit", "ms", "status"),
    [
        # A bound in time inside the machine, with the host away, and with it there.
        (a_silent_abort, 8000, "DISTURBED"),
        (a_silent_abort, 400, "FAIL"),
        # Nobody said anything of it: that was no matter of time.
        (said("aborts.killed=", "aborts.other="), 8000, "FAIL"),
        # What is no matter of time is the kernel's, wherever the host was.
        (said("pfn.moved=0", "pfn.moved=1"), 8000, "FAIL"),
        (said("finish=0", "finish=-16"), 8000, "FAIL"),
    ],
)
def test_an_absence_excuses_bounds_in_time_only(
    trial_2: Loader, edit: Edit, ms: int, status: str
) -> None:
    verdict = judge_trial(trial_2(edited(edit, harness=(-9000, -9000 + ms))), STAGE_2)
    assert verdict.status == status, verdict.why


def not_ok(rule: str, said_of_it: str = "") -> Edit:
    """A rule that does not hold, and a fact that the workload told before that."""

    def edit(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        at = next(n for n, line in enumerate(lines) if line.endswith(f' {rule}"]\n'))
        lines[at] = lines[at].replace('"ok ', '"not ok ')
        if said_of_it:
            stamp = json.loads(lines[at])[0]
            lines.insert(at, json.dumps([stamp, f"# {said_of_it}"]) + "\n")
        path.write_text("".join(lines))

    return edit


def mapped(when: str, count: int) -> Edit:
    def edit(folder: Path) -> None:
        looks = json.loads((folder / "tables.json").read_text())
        next(one for one in looks if one["when"] == when)["01:00.0"]["mapped"] = count
        (folder / "tables.json").write_text(json.dumps(looks))

    return edit


@pytest.mark.parametrize(
    ("edit", "check", "status"),
    [
        # Too few frames in time; and some that landed where nothing is mapped.
        (said("unmap.missing=50 of 50", "unmap.missing=10 of 50"), "unmap_faults", "DISTURBED"),
        (mapped("unmapped", 6303744), "unmap_faults", "FAIL"),
        (said("reuse.landed=0 of 32", "reuse.landed=5 of 32"), "reuse_faults", "FAIL"),
        (said("release.frames=0", "release.frames=7"), "detached_blocked", "FAIL"),
        # A rule that does not hold because no frame came, and one with the wrong errno.
        (not_ok("restore_twice"), "incoming_rules", "DISTURBED"),
        (not_ok("restore_twice", "rule.restore_twice=0"), "incoming_rules", "FAIL"),
    ],
)
def test_what_no_absence_explains_behind_an_iommu(
    trial_3: Loader, edit: Edit, check: str, status: str
) -> None:
    verdict = judge_trial(trial_3(edited(edit, harness=(-9000, -1000))), load_stage(3))
    found = next(a.outcome for a in verdict.answers if a.check == check)
    assert found.status == status, found.seen


def test_a_failure_of_the_kernels_is_not_hidden_by_a_disturbed_check(trial_2: Loader) -> None:
    edit = edited(silenced(300, 700), said("finish=0", "finish=-16"), qemu=(299, 699))
    verdict = judge_trial(trial_2(edit), STAGE_2)
    assert verdict.status == "FAIL"
    assert verdict.why.startswith("session_finished")


def test_a_pass_says_that_the_machine_stood_still(trial_1: Loader) -> None:
    trial = trial_1(edited(harness=(-500, 2500)))
    verdict = judge_trial(trial, STAGE_1)
    assert verdict.status == "PASS"
    assert verdict.away is not None
    assert "harness not run for 3000 ms" in verdict.away
    assert "harness not run for 3000 ms" in next(host_lines(trial))


def gave_up(folder: Path) -> None:
    path = folder / "trial.json"
    why = "nic.c:1: !deadline_passed(deadline): 17 of 200 frames"
    setting = json.loads(path.read_text()) | {"ended": "bail", "ended_detail": why}
    path.write_text(json.dumps(setting))


def test_who_gave_up_waiting_while_the_machine_stood_still_shows_nothing(trial_1: Loader) -> None:
    verdict = judge_trial(trial_1(edited(gave_up, qemu=(0, 3000))), STAGE_1)
    assert verdict.status == "DISTURBED"
    assert "gave up waiting; qemu not run for 3000 ms" in verdict.why


def stood_still(folder: Path) -> None:
    path = folder / "trial.json"
    setting = json.loads(path.read_text()) | {"ended": "timeout", "ended_detail": "silent"}
    path.write_text(json.dumps(setting))


def lost_end(folder: Path) -> None:
    cpu = "RAX=0\nRIP=ffffffff81000000 RFL=00000246 CPL=0 SMM=0 HLT=1\n\n"
    look = (
        "(qemu) info status\nVM status: running\n\n"
        f"(qemu) info registers -a\nCPU#0\n{cpu}CPU#1\n{cpu}"
        "(qemu) info lapic 0\nISR\t (none)\n\n(qemu) info lapic 1\nISR\t 236 \n\n"
    )
    (folder / "qemu-state.txt").write_text(look * 2)


def test_a_machine_that_qemu_stopped_is_no_timeout_of_the_kernels(trial_1: Loader) -> None:
    trial = trial_1(edited(stood_still, lost_end))
    verdict = judge_trial(trial, STAGE_1)
    assert verdict.status == "DISTURBED"
    assert "QEMU lost an EOI" in verdict.why


def by_kvm(folder: Path) -> None:
    path = folder / "trial.json"
    setting = json.loads(path.read_text())
    setting["host"]["accelerator"] = "kvm"
    path.write_text(json.dumps(setting))


def test_with_kvm_it_is_the_hosts_kernel_that_lost_it(trial_1: Loader) -> None:
    assert judge_trial(trial_1(edited(stood_still, lost_end, by_kvm)), STAGE_1).status == "TIMEOUT"


def test_with_kvm_an_assertion_is_qemus_still(trial_1: Loader) -> None:
    def asserted(folder: Path) -> None:
        said = "physmem.c:2678: iotlb_to_section: Assertion `section_index < 9' failed."
        (folder / "qemu.log").write_text(f"qemu-system-x86_64: {said}\n")

    trial = trial_1(edited(stood_still, asserted, by_kvm))
    assert judge_trial(trial, STAGE_1).status == "DISTURBED"


def test_a_machine_that_stands_still_without_that_is_a_timeout(trial_1: Loader) -> None:
    assert judge_trial(trial_1(edited(stood_still)), STAGE_1).status == "TIMEOUT"


def fewer_came(folder: Path) -> None:
    path = folder / "dialogue.jsonl"
    path.write_text(path.read_text().replace("right=104 of=104", "right=103 of=104"))


def test_what_fails_where_all_cpus_go_on_fails(trial_1: Loader) -> None:
    assert judge_trial(trial_1(edited(fewer_came)), STAGE_1).status == "FAIL"


def test_what_fails_where_qemu_forgot_a_cpu_is_disturbed(trial_1: Loader) -> None:
    verdict = judge_trial(trial_1(edited(fewer_came, lost_end)), STAGE_1)
    assert (verdict.status, "many_came" in verdict.why) == ("DISTURBED", True)


def test_a_machine_that_went_on_is_not_excused_by_it(trial_1: Loader) -> None:
    assert judge_trial(trial_1(edited(lost_end)), STAGE_1).status == "PASS"


def stamped_late(ms: int) -> Edit:
    """The incoming side's fact reaches a harness that was stopped, so much later."""

    def edit(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        number = max(n for n, row in enumerate(rows) if row[1].startswith("# device.head="))
        for row in rows[number:]:
            row[0] += ms * MS
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        zero = kexec(folder)
        t = (rows[number][0] - zero) // MS
        host(folder, harness=(t - ms, t - 3))

    return edit


@pytest.mark.parametrize("ms", [300, 900])
def test_a_fact_that_is_stamped_late_is_taken_for_when_it_was(trial_2: Loader, ms: int) -> None:
    answers = {a.check: a.outcome for a in judge_trial(trial_2(stamped_late(ms)), STAGE_2).answers}
    assert answers["head_went_on"].status == "PASS", answers["head_went_on"]


def test_and_no_other_head_is_taken_for_right(trial_2: Loader) -> None:
    def edit(folder: Path) -> None:
        added("device.head", 60)(folder)
        stamped_late(300)(folder)

    answers = {a.check: a.outcome for a in judge_trial(trial_2(edit), STAGE_2).answers}
    assert answers["head_went_on"].status == "FAIL", answers["head_went_on"]


def test_frames_that_were_written_late_are_not_taken_for_written(trial_2: Loader) -> None:
    """By a device that nobody saw waiting: at the first look its head was less far, too."""
    late = 50

    def edit(folder: Path) -> None:
        dialogue, log = folder / "dialogue.jsonl", folder / "device-landed.bin"
        rows = [json.loads(line) for line in dialogue.read_text().splitlines()]
        look = next(row for row in rows if row[1].startswith("# device.head="))
        look[1] = f"# device.head={int(look[1].partition('=')[2]) - late}"
        dialogue.write_text("".join(json.dumps(row) + "\n" for row in rows))
        landed = read_landed(log)
        seen = [n for n, frame in enumerate(landed) if frame.seen <= look[0]]
        for n in seen[-late:]:
            landed[n] = landed[n]._replace(seen=look[0] + 100 * MS)
        landed.sort(key=lambda frame: frame.seen)
        write_landed(log, array.array("Q", chain.from_iterable(landed)))

    answers = {a.check: a.outcome for a in judge_trial(trial_2(edit), STAGE_2).answers}
    assert answers["head_went_on"].status == "PASS", answers["head_went_on"]


def test_a_device_that_writes_nothing_is_no_host_that_keeps_frames(trial_2: Loader) -> None:
    """Its head stands still from a second before the first look on, and nobody was away."""

    def edit(folder: Path) -> None:
        dialogue, log = folder / "dialogue.jsonl", folder / "device-landed.bin"
        rows = [json.loads(line) for line in dialogue.read_text().splitlines()]
        looks = [row for row in rows if row[1].startswith("# device.head=")]
        looks[1][1] = looks[0][1]
        dialogue.write_text("".join(json.dumps(row) + "\n" for row in rows))
        landed = [one for one in read_landed(log) if one.seen < looks[0][0] - 1000 * MS]
        write_landed(log, array.array("Q", chain.from_iterable(landed)))

    answers = {a.check: a.outcome for a in judge_trial(trial_2(edit), STAGE_2).answers}
    assert answers["head_went_on"].status == "FAIL", answers["head_went_on"]


def another_gap(folder: Path) -> None:
    """The guest's longest gap ended before it was paused; its log has the counter of then."""
    for key, change in (
        ("guest.0.resume.gap_start", -9_200_000_000),
        ("guest.0.resume.gap_end", -9_200_000_000),
        ("guest.0.resume.counter_before", -50),
        ("guest.0.resume.counter_after", -50),
    ):
        path = folder / "dialogue.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        for number, line in enumerate(lines):
            t, text = json.loads(line)
            if text.startswith(f"# {key}="):
                value = int(text.partition("=")[2]) + change
                lines[number] = json.dumps([t, f"# {key}={value}"]) + "\n"
        path.write_text("".join(lines))


@pytest.mark.parametrize(("away", "status"), [({"qemu": (-3000, -500)}, "DISTURBED"), ({}, "FAIL")])
def test_a_guest_whose_longest_gap_was_another_one(
    trial_1: Loader, away: dict[str, tuple[int, int]], status: str
) -> None:
    """It says nothing of the blackout then; what was captured and loaded still has to agree."""
    verdict = judge_trial(trial_1(edited(another_gap, **away)), STAGE_1)
    answers = {a.check: a.outcome.status for a in verdict.answers}
    assert answers["counter"] == status
    assert verdict.status == status, verdict.why


def unmeasured(folder: Path) -> None:
    (folder / "host.jsonl").unlink()


def without_echoes(folder: Path) -> None:
    path = folder / "host.jsonl"
    path.write_text(path.read_text().replace('"echoes": 9', '"echoes": 0'))


def test_a_trial_of_whose_host_nothing_is_known_is_no_verdict(trial_1: Loader) -> None:
    verdict = judge_trial(trial_1(unmeasured), STAGE_1)
    assert verdict.status == "ERROR"
    assert "host.jsonl is missing" in verdict.why


def test_a_trial_in_which_no_echo_came_back_is_none_either(trial_1: Loader) -> None:
    def edit(folder: Path) -> None:
        host(folder)
        without_echoes(folder)

    verdict = judge_trial(trial_1(edit), STAGE_1)
    assert verdict.status == "ERROR"
    assert "no echo came back" in verdict.why


def test_a_trial_of_today_whose_host_was_measured_is_judged(trial_1: Loader) -> None:
    assert judge_trial(trial_1(edited()), STAGE_1).status == "PASS"


def complained(text: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "console.jsonl"
        t = read_stamped(path)[-1].t
        with path.open("a") as console:
            console.write(json.dumps([t, text]) + "\n")

    return edit


LOCKUP = "watchdog: BUG: soft lockup - CPU#0 stuck for 22s!"
NO_TIMER = "Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug"


@pytest.mark.parametrize(
    ("text", "away", "status"),
    [
        (LOCKUP, {"qemu": (0, 3000)}, "DISTURBED"),
        (LOCKUP, {}, "FAIL"),
        (NO_TIMER, {"qemu": (0, 3000)}, "DISTURBED"),
        (NO_TIMER, {}, "CRASHED"),
        ("Kernel panic - not syncing: no reason", {"qemu": (0, 3000)}, "CRASHED"),
        ("WARNING: CPU: 0 PID: 1 at mm/memfd_luo.c:73", {"qemu": (0, 3000)}, "FAIL"),
    ],
)
def test_a_kernel_may_complain_of_time_that_the_host_took(
    trial_1: Loader, text: str, away: dict[str, tuple[int, int]], status: str
) -> None:
    verdict = judge_trial(trial_1(edited(complained(text), **away)), STAGE_1)
    assert verdict.status == status, verdict.why


def run_of(*trials: Trial) -> Run:
    return Run(stage=2, tool="t", commit="c", started="s", command=(), trials=trials)


def named(trial: Trial, attempt: int) -> Trial:
    name = "main" if attempt == 1 else f"main-attempt-{attempt}"
    setting = trial.setting.model_copy(update={"name": name, "attempt": attempt})
    return trial.model_copy(update={"setting": setting})


@pytest.fixture
def corrupted(tmp_path: Path) -> Trial:
    (tmp_path / "corrupted").mkdir()
    source = RECORDED / "vfio_noiommu" / "main"
    load = RecordedTrial(STAGE_2, source, tmp_path / "corrupted")
    return load(edited(silenced(300, 700), qemu=(299, 699)))


def test_the_first_attempt_that_shows_something_counts(trial_2: Loader, corrupted: Trial) -> None:
    good = trial_2()
    verdict = judge(run_of(corrupted, named(good, 2)), STAGE_2)
    assert verdict.status == "PASS"
    assert len(verdict.trials) == 1
    assert verdict.trials[0].trial == "main-attempt-2"
    (told,) = attempts(verdict)
    assert told.startswith("main-attempt-2: 2 attempts: the first was disturbed: dma_in_gap")
    assert disturbed_attempts(verdict) == 1


def test_a_failure_is_never_tried_again(trial_2: Loader, tmp_path: Path) -> None:
    """Whatever stands behind it in the record: only what is disturbed may be followed."""
    (tmp_path / "bad").mkdir()
    source = RECORDED / "vfio_noiommu" / "main"
    bad = RecordedTrial(STAGE_2, source, tmp_path / "bad")(said("finish=0", "finish=-16"))
    verdict = judge(run_of(bad, named(trial_2(), 2)), STAGE_2)
    assert verdict.status == "FAIL"
    assert verdict.trials[0].trial == "main"


def test_where_no_attempt_was_quiet_the_run_says_so(corrupted: Trial) -> None:
    verdict = judge(run_of(corrupted, named(corrupted, 2), named(corrupted, 3)), STAGE_2)
    assert (verdict.status, int(verdict.exit)) == ("DISTURBED", 3)
    assert len(verdict.trials[0].disturbed) == 2
    assert disturbed_attempts(verdict) == 3


def test_a_control_is_not_broken_by_the_host(trial_2: Loader, corrupted: Trial) -> None:
    """It must break its check itself: what the host corrupted proves nothing of it."""
    control = Control(
        name="nothing-done",
        what="nothing",
        breaks=frozenset({"dma_in_gap"}),
        may_break=frozenset({"no_silence"}),
        reason=reason(fact_is("incoming", "finish", "0"), timed=True),
    )
    assert judge_control(corrupted, control, STAGE_2).status == "DISTURBED"
    assert judge_control(trial_2(), control, STAGE_2).status == "PASSED"


def test_a_control_whose_reason_is_no_matter_of_time_needs_no_quiet_host(
    trial_2: Loader, corrupted: Trial
) -> None:
    control = Control(
        name="nothing-done",
        what="nothing",
        breaks=frozenset({"dma_in_gap"}),
        may_break=frozenset({"no_silence"}),
        reason=reason(fact_is("incoming", "finish", "0")),
    )
    assert judge_control(corrupted, control, STAGE_2).status == "FAILED AS EXPECTED"
    assert judge_control(trial_2(), control, STAGE_2).status == "PASSED"
    other = replace(control, reason=reason(fact_is("incoming", "finish", "-16")))
    assert judge_control(corrupted, other, STAGE_2).status == "WRONG REASON"


def test_a_control_that_the_host_corrupted_elsewhere_is_not_judged(corrupted: Trial) -> None:
    control = Control(
        name="finish-refused",
        what="nothing",
        breaks=frozenset({"session_finished"}),
        reason=reason(fact_is("incoming", "finish", "-16")),
    )
    verdict = judge_control(corrupted, control, STAGE_2)
    assert verdict.status == "PASSED", "its own check did not notice, which no host explains"


def test_no_host_explains_a_wrong_errno(tmp_path: Path) -> None:
    def not_ok(seen: str) -> Edit:
        def edit(folder: Path) -> None:
            path = folder / "dialogue.jsonl"
            lines = path.read_text().splitlines()
            at = next(n for n, line in enumerate(lines) if " open_cdev" in line)
            stamp = json.loads(lines[at])[0]
            told = ["# rule.3.expected=-16 EBUSY and frames", f"# rule.3.seen={seen}"]
            lines[at] = lines[at].replace('"ok ', '"not ok ')
            lines[at:at] = [json.dumps([stamp, text]) for text in told]
            path.write_text("\n".join(lines) + "\n")

        return edit

    def status(name: str, seen: str) -> str:
        (tmp_path / name).mkdir()
        load = RecordedTrial(STAGE_2, RECORDED / "vfio_noiommu" / "main", tmp_path / name)
        verdict = judge_trial(load(edited(not_ok(seen), qemu=(299, 1299))), STAGE_2)
        return next(a.outcome.status for a in verdict.answers if a.check == "incoming_rules")

    assert status("silent", "-16 EBUSY and no frame") == "DISTURBED"
    assert status("wrong", "0  and frames") == "FAIL"
    assert status("both", "-22 EINVAL and no frame") == "FAIL"


@pytest.mark.parametrize(
    ("ahead_ms", "waits_ms", "status"),
    [
        (2.3, 0, "FAIL"),
        (-2.3, 0, "FAIL"),
        (2.3, 40, "PASS"),
        (60.0, 40, "FAIL"),
        (-10.0, 40, "FAIL"),
        (41.0, 30, "FAIL"),
    ],
)
def test_a_guests_clock_is_off_by_no_more_than_its_cpus_waited(
    trial_1: Loader, ahead_ms: float, waits_ms: float, status: str
) -> None:
    """KVM adds to it what a CPU of the machine was not run for between two of KVM's readings."""

    def edit(folder: Path) -> None:
        khz = int(re.findall(r"# tsc\.khz=(\d+)", (folder / "dialogue.jsonl").read_text())[-1])
        added("guest.0.clock_offset", round(ahead_ms * khz))(folder)
        host(folder)
        rows = [json.loads(line) for line in (folder / "host.jsonl").read_text().splitlines()]
        rows[-1]["waits"] = {"CPU 0/TCG": waits_ms, "CPU 1/TCG": waits_ms}
        (folder / "host.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    verdict = judge_trial(trial_1(edit), STAGE_1)
    found = next(a.outcome for a in verdict.answers if a.check == "guest_clock")
    assert found.status == status, found.seen


@pytest.mark.parametrize(
    ("fact", "ms", "away", "check", "status"),
    [
        # Who speaks with the machine does not run the guest.
        ("next_gap_tsc", 1200, {"harness": (-3000, -500)}, "guest_never_still", "FAIL"),
        ("next_gap_tsc", 1200, {"qemu": (-1000, -500)}, "guest_never_still", "FAIL"),
        ("next_gap_tsc", 1200, {"qemu": (-2000, -500)}, "guest_never_still", "DISTURBED"),
        # Two seconds are missing of the gap: more than one second's absence explains.
        ("gap_tsc", 40, {"harness": (-500, -200)}, "guest_gap", "FAIL"),
        ("gap_tsc", 40, {"harness": (-3000, -500)}, "guest_gap", "DISTURBED"),
        ("gap_tsc", 9000, {"harness": (-1000, -500)}, "guest_gap", "FAIL"),
    ],
)
def test_a_gap_that_nobody_elses_absence_explains_is_the_machines(
    trial_1: Loader, fact: str, ms: int, away: dict[str, tuple[int, int]], check: str, status: str
) -> None:
    def gap(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        khz = int(re.findall(r"# tsc\.khz=(\d+)", path.read_text())[-1])
        text = re.sub(rf"(# guest\.0\.resume\.{fact}=)\d+", rf"\g<1>{ms * khz}", path.read_text())
        path.write_text(text)

    verdict = judge_trial(trial_1(edited(gap, **away)), STAGE_1)
    found = next(a.outcome for a in verdict.answers if a.check == check)
    assert found.status == status, found.seen


@pytest.mark.parametrize(
    ("said", "away", "status"),
    [
        ("enabled 0, active, for vfio-pci", {"qemu": (-1000, -500)}, "FAIL"),
        ("enabled 0, active, for vfio-pci", {"harness": (-3000, -500)}, "FAIL"),
        ("enabled 0, active, for vfio-pci", {"qemu": (-3000, -500)}, "DISTURBED"),
        # What no time has to do with.
        ("enabled 2, active, for vfio-pci", {"qemu": (-3000, -500)}, "FAIL"),
        ("enabled 0, suspended, for (null)", {"qemu": (-3000, -500)}, "FAIL"),
    ],
)
def test_a_device_that_stays_awake_is_the_hosts_only_if_the_machine_was_away_for_long(
    tmp_path: Path, said: str, away: dict[str, tuple[int, int]], status: str
) -> None:
    def awake(folder: Path) -> None:
        path = folder / "dialogue.jsonl"
        text = path.read_text()
        assert text.count("# device.let_go=") == 1
        path.write_text(re.sub(r"(# device\.let_go=)[^\"]*", rf"\g<1>{said}", text))

    load = RecordedTrial(STAGE_2, RECORDED / "vfio_noiommu" / "main", tmp_path)
    verdict = judge_trial(load(edited(awake, **away)), STAGE_2)
    found = next(a.outcome for a in verdict.answers if a.check == "idle_when_closed")
    assert found.status == status, found.seen
