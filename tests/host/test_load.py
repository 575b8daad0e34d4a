# SPDX-License-Identifier: GPL-2.0-only
"""Busy processes beside the trials: they spin, they end, and the record tells of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from common.cli.parser import build_parser
from common.host.processes.cleanup import CleanupProcess
from common.host.processes.load import busy
from common.judge.verdict import judge
from common.record.evidence import Run, Trial
from common.record.qemu.process import process_identity
from common.report.comparison import comparison
from common.report.text import report_text
from common.stage.loading import load_stage
from tests.host.test_cleanup import wait_until_gone

_HARNESS = """
import time
from common.host.processes.cleanup import CleanupProcess
from common.host.processes.load import busy
with CleanupProcess() as cleanup, busy(2, cleanup) as pids:
    print(*pids, flush=True)
    time.sleep(600)
"""


def cpu_ticks(pid: int) -> int:
    """Of proc_pid_stat(5), utime."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_they_are_busy_and_they_end() -> None:
    with CleanupProcess() as cleanup, busy(2, cleanup) as pids:
        assert len(pids) == 2
        deadline = time.monotonic() + 20
        while not all(cpu_ticks(pid) > 5 for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert [process_identity(pid) for pid in pids] == [None, None]


def test_none_is_none() -> None:
    with CleanupProcess() as cleanup, busy(0, cleanup) as pids:
        assert pids == ()


def test_they_end_with_a_harness_that_is_killed() -> None:
    harness = subprocess.Popen([sys.executable, "-c", _HARNESS], stdout=subprocess.PIPE, text=True)
    assert harness.stdout
    pids = [int(word) for word in harness.stdout.readline().split()]
    assert len(pids) == 2
    assert all(process_identity(pid) for pid in pids)
    harness.send_signal(signal.SIGKILL)
    harness.wait()
    assert all(wait_until_gone(pid) for pid in pids)


def test_the_guardian_of_thousands_of_trials_has_room() -> None:
    """It holds a descriptor for each process that lives, not for each that there ever was."""
    with CleanupProcess() as cleanup:
        for _ in range(40):
            child = subprocess.Popen([sys.executable, "-S", "-E", "-c", "pass"])
            cleanup.end_process(child.pid)
            child.wait()
        last = subprocess.Popen([sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"])
        cleanup.end_process(last.pid)
        deadline = time.monotonic() + 20
        while (held := pidfds_of(cleanup)) != 1:
            assert time.monotonic() < deadline, held
            time.sleep(0.05)
    assert last.wait() == -signal.SIGKILL


def pidfds_of(cleanup: CleanupProcess) -> int:
    held = 0
    for path in Path(f"/proc/{cleanup._process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held += "pidfd" in str(path.readlink())  # "anon_inode:[pidfd]"; "pidfd:[N]" since 6.9
    return held


@pytest.mark.parametrize("text", ["-1", "65", "some"])
def test_what_is_no_load(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["demo", "--load", text])
    assert "--load" in capsys.readouterr().err


def test_every_verb_that_runs_trials_knows_its_load() -> None:
    parser = build_parser()
    assert parser.parse_args(["run", "1", "--load", "4"]).load == 4
    assert [parser.parse_args([*verb]).load for verb in (["demo"], ["gate"], ["matrix"])] == [0] * 3


def test_the_report_and_the_comparison_say_it(recorded: Callable[..., Trial]) -> None:
    stage = load_stage(1)
    quiet, loaded = (
        Run(stage=1, tool="t", commit="c", started="s", command=("run", "1"), trials=(trial,))
        for trial in (recorded("main"), recorded("main", setting={"load": 4}))
    )
    said = "load    4 busy processes beside each trial"
    assert said in report_text(loaded, judge(loaded, stage), stage).splitlines()
    assert "busy process" not in report_text(quiet, judge(quiet, stage), stage)
    verdicts = judge(quiet, stage), judge(loaded, stage)
    text = comparison(("quiet", "loaded"), (quiet, loaded), verdicts, stage)
    assert "Times: not compared: tcg, default lane against tcg, default lane, load 4." in text
