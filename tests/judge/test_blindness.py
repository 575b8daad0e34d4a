# SPDX-License-Identifier: GPL-2.0-only
"""A witness that did not see makes a stored trial an error, and no verdict on a kernel."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from common.cli.parser import main
from common.judge.stored_run import opened
from common.judge.verdict import judge, judge_control, judge_trial
from common.record.evidence import Trial
from common.stage.declaration import Stage
from common.stage.loading import load_stage
from tests.recorded_trial import IOMMUFD, KVM_MEMFD, VFIO_NOIOMMU, Edit, RecordedTrial
from tests.stored import write_record

STAGES = {2: VFIO_NOIOMMU, 3: IOMMUFD}


@pytest.fixture(params=STAGES, ids=lambda number: f"stage{number}")
def stage(request: pytest.FixtureRequest) -> Stage:
    return load_stage(request.param)


@pytest.fixture
def trial(stage: Stage, tmp_path: Path) -> Callable[..., Trial]:
    return RecordedTrial(stage, STAGES[stage.number] / "main", tmp_path)


def trace(change: Callable[[list[str]], list[str]]) -> Edit:
    """The lines of QEMU's trace, changed."""

    def edit(folder: Path) -> None:
        path = folder / "qemu-trace.log"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return edit


def as_qemu_11(lines: list[str]) -> list[str]:
    """The same events, as QEMU 11 writes them."""

    def dated(match: re.Match[str]) -> str:
        second = datetime.datetime.fromtimestamp(int(match[1]), datetime.UTC)
        return f"{second:%Y-%m-%dT%H:%M:%S}.{match[2]}Z "

    return [re.sub(r"^\d+@(\d+)\.(\d{6}):", dated, line) for line in lines]


def test_the_trace_of_either_qemu_says_the_same(
    trial: Callable[..., Trial], stage: Stage, tmp_path: Path
) -> None:
    told = trial()
    verdict = judge_trial(told, stage)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(stage.checks)} checks")
    (tmp_path / "main").rename(tmp_path / "as-of-qemu-10")
    assert trial(trace(as_qemu_11)).witness == told.witness


BLIND = {
    "empty": (lambda _lines: [], "wrote no trace: qemu-trace.log is empty"),
    "another form": (
        lambda lines: [line.partition(":")[2] for line in lines],
        "cannot be read: qemu-trace.log has the line '(?:e1000e_cb_qdev_reset_hold|vtd_ir_remap)",
    ),
    "one field more": (
        lambda lines: [line.replace(" <- ", " len 2 <- ") for line in lines],
        r"cannot be read: .* len 2 <- .* and \d+ more like it",
    ),
    "another order": (
        lambda lines: [re.sub(r"(@0x\w+) <- (0x\w+)", r"\2 -> \1", line) for line in lines],
        "cannot be read: .* -> @0x",
    ),
    "cut off at a line's end": (lambda lines: lines[:-40], "is cut off: qemu-trace.log ends after"),
    "cut off in a line": (
        lambda lines: [*lines[:-1], lines[-1][:-9]],
        r"cannot be read: qemu-trace.log has the line '.+'$",
    ),
    "no boot in it": (
        lambda lines: lines[len(lines) * 9 // 10 :],
        "no write to PCI configuration space while the machine booted",
    ),
    "another clock": (
        lambda lines: [re.sub(r"@\d{10}", "@1000000000", line) for line in lines],
        "no write to PCI configuration space while the machine booted",
    ),
}


@pytest.mark.parametrize("what", BLIND)
def test_a_trace_that_nobody_can_read(trial: Callable[..., Trial], stage: Stage, what: str) -> None:
    change, said = BLIND[what]
    seen = trial(trace(change))
    verdict = judge_trial(seen, stage)
    assert verdict.status == "ERROR" and re.search(f"QEMU 10.*{said}", verdict.why), verdict.why
    control = judge_control(seen, stage.controls[0], stage)
    assert control.status == "ERROR" and control.why == verdict.why


@pytest.mark.parametrize(
    "event",
    [
        "pci_pm_transition",
        "e1000x_rx_can_recv_disabled",
        "e1000e_core_ctrl_sw_reset",
        "e1000e_cb_qdev_reset_hold",
    ],
)
def test_an_event_that_this_trial_never_shows_proves_nothing_by_its_absence(
    trial: Callable[..., Trial], stage: Stage, event: str
) -> None:
    seen = trial(trace(lambda lines: [line for line in lines if f":{event}" not in line]))
    verdict = judge_trial(seen, stage)
    assert verdict.status == "ERROR" and f"has no {event} before the traffic" in verdict.why


def test_a_trace_of_configuration_writes_alone_is_none(
    trial: Callable[..., Trial], stage: Stage
) -> None:
    kept = ("pci_cfg_write", "runstate_set")
    seen = trial(trace(lambda lines: [line for line in lines if any(k in line for k in kept)]))
    assert judge_trial(seen, stage).status == "ERROR"


@pytest.mark.parametrize("event", ["vtd_dmar_enable", "vtd_reg_dmar_root", "vtd_dmar_fault"])
def test_the_iommus_events_have_to_be_seen_as_well(tmp_path: Path, event: str) -> None:
    told = RecordedTrial(load_stage(3), IOMMUFD / "main", tmp_path)
    seen = told(trace(lambda lines: [line for line in lines if f":{event}" not in line]))
    verdict = judge_trial(seen, load_stage(3))
    assert verdict.status == "ERROR" and f"has no {event}" in verdict.why


def test_other_lines_are_no_events(trial: Callable[..., Trial], stage: Stage) -> None:
    def add(lines: list[str]) -> list[str]:
        return [lines[0], "qemu-system-x86_64: warning: something\n", *lines[1:]]

    assert judge_trial(trial(trace(add)), stage).status == "PASS"


def test_a_qemu_that_went_by_itself_does_not_end_its_trace(
    trial: Callable[..., Trial],
) -> None:
    """As of the controls that end it."""

    def edit(folder: Path) -> None:
        trace(lambda lines: lines[:-40])(folder)
        path = folder / "trial.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"ended": "gone"}))

    assert trial(edit).witness.blind is None


def emptied(name: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(b"")

    return edit


def test_a_watcher_that_saw_nothing_at_all(trial: Callable[..., Trial], stage: Stage) -> None:
    verdict = judge_trial(trial(emptied("device-landed.bin")), stage)
    assert verdict.status == "ERROR"
    assert re.match("the watcher of the machine's RAM saw no frame, though .* counted", verdict.why)


def test_a_sender_that_sent_nothing(trial: Callable[..., Trial], stage: Stage) -> None:
    """Seen on a host so busy that the sender did not get to its first frame within 20 s."""

    def edit(folder: Path) -> None:
        for name in ("device-sent.bin", "device-landed.bin", "other-sent.bin", "other-landed.bin"):
            emptied(name)(folder)

    verdict = judge_trial(trial(edit), stage)
    assert verdict.status == "ERROR" and "the host sent no frame" in verdict.why


def test_a_watcher_that_left_nothing(trial: Callable[..., Trial], stage: Stage) -> None:
    verdict = judge_trial(trial(lambda folder: (folder / "device-landed.bin").unlink()), stage)
    assert verdict.status == "ERROR" and "device-landed.bin is missing" in verdict.why


def test_events_of_the_monitor_that_never_came(trial: Callable[..., Trial], stage: Stage) -> None:
    verdict = judge_trial(trial(emptied("qmp.jsonl")), stage)
    assert verdict.status == "ERROR" and "did not even report that" in verdict.why


def test_stage_1_needs_the_monitor_as_well(tmp_path: Path) -> None:
    """Or a machine that was reset would be one of which no reset was told."""
    stage = load_stage(1)
    told = RecordedTrial(stage, KVM_MEMFD / "main", tmp_path)
    verdict = judge_trial(told(emptied("qmp.jsonl")), stage)
    assert verdict.status == "ERROR" and "qmp.jsonl" in verdict.why


def test_a_digest_of_pages_that_was_not_kept(tmp_path: Path) -> None:
    def forget(folder: Path) -> None:
        told = json.loads((folder / "ram-witness.json").read_text())
        del told["sha256"]["retrieved"]
        (folder / "ram-witness.json").write_text(json.dumps(told))

    stage = load_stage(1)
    verdict = judge_trial(RecordedTrial(stage, KVM_MEMFD / "main", tmp_path)(forget), stage)
    assert verdict.status == "ERROR" and "pages at 'retrieved' is not in" in verdict.why


def test_a_look_at_the_tables_that_was_not_kept(tmp_path: Path) -> None:
    def forget(folder: Path) -> None:
        looks = json.loads((folder / "tables.json").read_text())
        (folder / "tables.json").write_text(json.dumps(looks[1:]))

    stage = load_stage(3)
    verdict = judge_trial(RecordedTrial(stage, IOMMUFD / "main", tmp_path)(forget), stage)
    assert verdict.status == "ERROR"
    assert re.match("the host's look at the IOMMU's tables at '[a-z-]+' is not in", verdict.why)


def test_judge_says_it_with_exit_status_3(
    run_2_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_2_folder / "main" / "qemu-trace.log").write_text("")
    write_record(run_2_folder, stage=2)
    assert main(["judge", str(run_2_folder)]) == 3
    assert "qemu-trace.log is empty" in capsys.readouterr().out


def test_a_control_whose_witness_is_blind_makes_no_stage_broken(run_2_folder: Path) -> None:
    with opened(str(run_2_folder)) as stored:
        run = stored.run
    main_trial = run.trials[0]
    name = load_stage(2).controls[0].name
    control = main_trial.model_copy(
        update={
            "setting": main_trial.setting.model_copy(update={"name": f"c-{name}", "control": name}),
            "witness": main_trial.witness.model_copy(update={"blind": "nothing was seen"}),
        }
    )
    verdict = judge(run.model_copy(update={"trials": (main_trial, control)}), load_stage(2))
    assert (verdict.status, verdict.why) == ("ERROR", f"c-{name}: nothing was seen")
    assert verdict.exit == 3
