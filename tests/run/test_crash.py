# SPDX-License-Identifier: GPL-2.0-only
"""What is told of a kernel that died, on the console of a real one.

tests/recorded/crash/ has the console of a live update into a kernel with planted.patch, which
writes to address 0 when it gives the guest's memory back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.judge.verdict import judge
from common.record.evidence import Run, Trial
from common.record.stored_file import read_stamped
from common.report import ktap
from common.report.text import report_text
from common.run.post_mortem.crash import call_trace, crash_window, describe, lines_that_matter
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED

FOLDER = RECORDED / "crash"
LINES = read_stamped(FOLDER / "console.jsonl")
PANIC = read_stamped(RECORDED / "kvm_memfd" / "control-panic" / "console.jsonl")
SCRIPT = """\
[ "$1" = VMLINUX ] && [ -d "$2" ] || exit 7
sed -e 's/luo_session_ioctl+[^ ]*/luo_session_ioctl (luo_session.c:7)/' -e 's/+0x[^ ]*/ (??:?)/'
"""


def test_the_ten_lines_to_read_first() -> None:
    told = lines_that_matter(crash_window(LINES))
    assert told[:5] == (
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0002) - not-present page",
        "Oops: Oops: 0002 [#1] SMP",
        "CPU: 1 UID: 0 PID: 37 Comm: init Not tainted 7.3.4-luo-in #1 PREEMPTLAZY  ",
    )
    assert told[5:7] == (
        "RIP: 0010:memfd_luo_retrieve+0xe4/0x3a1",
        "Kernel panic - not syncing: Fatal exception",
    )
    assert len(told) == 10
    assert told[7].endswith("luo_retrieve_file+0xc2/0x16c")


def test_the_stack_is_that_of_the_first_trace() -> None:
    trace = call_trace(crash_window(LINES))
    assert trace[:2] == ("RIP: 0010:memfd_luo_retrieve+0xe4/0x3a1", "Call Trace:")
    assert [frame.split("+")[0].lstrip(" ?") for frame in trace[2:]] == [
        "luo_retrieve_file",
        "luo_session_retrieve_fd",
        "luo_session_ioctl",
        "__x64_sys_ioctl",
        "ksys_write",
        "do_syscall_64",
        "entry_SYSCALL_64_after_hwframe",
    ]


def test_a_panic_without_an_oops() -> None:
    window = crash_window(PANIC)
    assert window[0] == "Kernel panic - not syncing: sysrq triggered crash"
    assert lines_that_matter(window)[0] == window[0]
    assert any("sysrq_handle_crash" in frame for frame in call_trace(window))


def test_a_console_without_a_crash() -> None:
    sane = LINES[:460]
    assert crash_window(sane) == lines_that_matter(()) == call_trace(()) == ()
    crash = describe("incoming kernel", sane, ())
    assert (crash.kernel, crash.lines, crash.stack) == ("7.3.4-luo-in", (), ())


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Two kernels in a cache whose source has a script that decodes one function."""
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path))
    scripts = tmp_path / "sources" / "ident" / "tree" / "scripts"
    scripts.mkdir(parents=True)
    (scripts / "decode_stacktrace.sh").write_text(SCRIPT)
    return [
        SimpleNamespace(
            release=f"7.3.4-luo-{side}",
            vmlinux="VMLINUX",
            build_id="0123456789abcdef",
            meta=SimpleNamespace(worktree="ident", flags=["gcc"]),
        )
        for side in ("out", "in")
    ]


def test_the_stack_is_decoded_with_the_kernel_that_died(kernels: list[Any]) -> None:
    crash = describe("incoming kernel", LINES, kernels)
    assert (crash.phase, crash.kernel) == ("incoming kernel", "7.3.4-luo-in")
    assert crash.decoded_by == (
        "scripts/decode_stacktrace.sh, vmlinux 0123456789ab without line tables"
        " (run with --line-tables for file and line)"
    )
    assert " ? luo_session_ioctl+0x13a/0x16a (luo_session.c)" in crash.stack
    assert " ? luo_retrieve_file+0xc2/0x16c" in crash.stack
    kernels[1].meta.flags.append("KCFLAGS=-g1")
    crash = describe("incoming kernel", LINES, kernels)
    assert crash.decoded_by == "scripts/decode_stacktrace.sh, vmlinux 0123456789ab"
    assert " ? luo_session_ioctl (luo_session.c:7)" in crash.stack


def test_why_it_was_not_decoded(kernels: list[Any], tmp_path: Path) -> None:
    trace = call_trace(crash_window(LINES))
    kernels[1].vmlinux = "another"
    crash = describe("x", LINES, kernels)
    assert (crash.stack, crash.decoded_by) == (
        trace,
        "nothing: scripts/decode_stacktrace.sh: exit status 7",
    )
    (tmp_path / "sources" / "ident" / "tree" / "scripts" / "decode_stacktrace.sh").unlink()
    crash = describe("x", LINES, kernels)
    assert crash.decoded_by.startswith("nothing: the cache has no scripts/decode_stacktrace.sh")
    assert describe("x", LINES, ()).decoded_by == "nothing: it is not a kernel of this trial"


def test_report_and_gate_show_it(kernels: list[Any], recorded: Callable[..., Trial]) -> None:
    crash = describe("after 'reboot'", LINES, kernels)
    ended = {"ended": "crashed", "ended_detail": "x", "crash": crash.model_dump()}
    run = Run(
        stage=1,
        tool="t",
        commit="c",
        started="s",
        command=(),
        trials=(recorded("main", setting=ended),),
    )
    stage = load_stage(1)
    verdict = judge(run, stage)
    text = report_text(run, verdict, stage)
    assert "Crash   main: 7.3.4-luo-in died; phase: after 'reboot'\n  BUG: kernel NULL" in text
    assert "Stack   decoded by scripts/decode_stacktrace.sh, vmlinux 0123456789ab" in text
    assert "luo_session_ioctl+0x13a/0x16a (luo_session.c)" in text
    said = ktap.stage_result(1, stage, run, verdict)
    assert "  # RIP: 0010:memfd_luo_retrieve+0xe4/0x3a1\n" in said
    other = run.model_copy(update={"trials": (recorded("control-panic"),)})
    assert "Crash" not in report_text(other, judge(other, stage), stage)
