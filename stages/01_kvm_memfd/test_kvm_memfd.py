# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 for real: a machine, two kernels, a kexec; then every control."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.checks.live_update import outcome
from common.checks.model import Check, Control
from common.judge.verdict import judge_control, judge_trial
from common.machine.helper import MachineView
from common.paths import CHECKOUT
from common.record.witnesses import Witnessed
from common.run.setup import RunSetup, TrialPlan
from common.run.trial import run_trial
from common.stage.loading import load_stage
from common.suites.pytest_plugin import SetupFor, quiet_trial

STAGE = load_stage(1)


@pytest.fixture(scope="module")
def run_setup(setup_for: SetupFor) -> RunSetup:
    return setup_for(STAGE, {"guest_memory": 64, "vcpus": 1, "folios": 300})


def test_passes(run_setup: RunSetup) -> None:
    verdict = judge_trial(quiet_trial(run_setup, TrialPlan("main")), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


def test_two_vcpus(run_setup: RunSetup, tmp_path: Path) -> None:
    more = replace(run_setup, options={**run_setup.options, "vcpus": 2}, folder=tmp_path)
    verdict = judge_trial(quiet_trial(more, TrialPlan("main")), STAGE)
    assert verdict.status == "PASS", verdict.why


@pytest.mark.parametrize("control", STAGE.controls, ids=lambda control: control.name)
def test_control_fails_for_its_own_reason(run_setup: RunSetup, control: Control) -> None:
    trial = quiet_trial(run_setup, TrialPlan(f"control-{control.name}", control))
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "FAILED AS EXPECTED", verdict.why


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A temporary folder whose name leaves room for libvirt's sockets (108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="ks-", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_ended_harness_leaves_nothing(
    run_setup: RunSetup, short_folder: Path, number: signal.Signals
) -> None:
    """No QEMU, no temporary folder, no half run; whatever the harness dies of."""
    assert run_setup.kernels.outgoing.image.exists()
    environment = os.environ | {
        "TMPDIR": str(short_folder),
        "KEXEC_STAGES_RUNS": str(short_folder / "runs"),
        "PYTHONPATH": str(CHECKOUT),
    }
    command = [sys.executable, "-m", "common", "run", "1", "--no-controls"]
    harness = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert harness.stderr
    said = ""
    while "KVM guest" not in said:
        line = harness.stderr.readline()
        assert line, said
        said += line
    machines = _machines(short_folder)
    assert len(machines) == 1
    harness.send_signal(number)
    harness.wait(timeout=30)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (_machines(short_folder) or _left(short_folder)):
        time.sleep(0.05)
    assert (_machines(short_folder), _left(short_folder)) == ([], [])


def _machines(folder: Path) -> list[str]:
    """Command lines of the QEMU processes whose files lie below `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = process.read_bytes()
            if str(folder).encode() in words and b"qemu-system" in words:
                found.append(words.decode(errors="replace"))
    return found


def _left(folder: Path) -> list[str]:
    """What lies below `folder`, but for the empty folder of runs; it may vanish as we look."""
    return [
        name
        for _parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if name != "runs"
    ]


def mishap(name: str, what: str) -> Control:
    """What the harness has to get along with, and no claim can be of."""
    return Control(
        name=name,
        what=what,
        breaks=frozenset({"both_sides_ended_well"}),
        may_break=None,
        reason=Check("reason", "", lambda _trial: outcome(True, expected="", seen="", evidence="")),
    )


def test_a_machine_that_starts_over_and_over_is_a_timeout(run_setup: RunSetup) -> None:
    restarting = mishap("restarting", "no workload says a word: the kernel is started again")
    verdict = judge_trial(run_trial(run_setup, TrialPlan("restarting", restarting)), STAGE)
    assert verdict.status == "TIMEOUT"
    assert "boot of the outgoing kernel: a kernel began 4 times" in verdict.why


def test_a_triple_fault_is_no_control_of_ours(run_setup: RunSetup) -> None:
    """Where it was is told where the host saw RAM before the firmware wrote to it."""
    control = STAGE.control("firmware-reboot")
    setup = replace(run_setup, append=("reboot=triple",))
    trial = quiet_trial(setup, TrialPlan("triple-fault", control))
    assert trial.last_look
    assert trial.last_look.triple_fault
    verdict = judge_control(trial, control, STAGE)
    assert verdict.status == "WRONG REASON"
    assert verdict.why.startswith("outgoing kernel: ")
    assert "triple fault" in verdict.why


def test_a_silent_incoming_kernel_is_a_timeout(run_setup: RunSetup) -> None:
    silent = mishap("silent", "the incoming workload never says a word")
    trial = run_trial(run_setup, TrialPlan("silent", silent))
    verdict = judge_trial(trial, STAGE)
    assert verdict.status == "TIMEOUT"
    assert "kexec and boot of the incoming kernel" in verdict.why
    # Where each CPU stood when nothing more was heard.
    state = (run_setup.folder / "silent" / "qemu-state.txt").read_text()
    assert "CPU#0" in state and "dumping local APIC state for CPU 1" in state


def test_a_qemu_that_ends_is_an_error_and_its_log_is_kept(
    run_setup: RunSetup, tmp_path: Path
) -> None:
    class Killer:
        def __init__(self, machine: MachineView) -> None:
            self.machine = machine
            self.killed = False

        def on_line(self, _text: str) -> None:
            # Once: one read may hold many lines, and QEMU is gone before the last is told.
            if not self.killed:
                os.kill(self.machine.process.pid, signal.SIGTERM)
            self.killed = True

    stage = replace(
        STAGE,
        helper=lambda machine: contextlib.nullcontext(Killer(machine)),
        witness=lambda _raw: Witnessed(),
    )
    trial = run_trial(replace(run_setup, stage=stage, folder=tmp_path), TrialPlan("main"))
    assert judge_trial(trial, STAGE).status == "ERROR"
    # QEMU's own account of its end: nothing of libvirt's does so.
    assert "terminating on signal 15" in (tmp_path / "main" / "qemu.log").read_text()


def test_every_check_is_broken_by_a_control() -> None:
    broken = frozenset().union(*(control.breaks for control in STAGE.controls))
    assert {check.name for check in STAGE.checks} == broken
