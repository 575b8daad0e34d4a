# SPDX-License-Identifier: GPL-2.0-only
"""The console parser: what is a splat, what is not."""

from __future__ import annotations

import pytest

from common.record.console import is_fatal, parse, strip_prefix
from common.record.dialogue import Line


def lines(*texts: str) -> list[Line]:
    return [Line(t=n, text=text) for n, text in enumerate(texts)]


def test_both_kernels_and_the_jump() -> None:
    console = parse(
        lines(
            "[    0.000000] Linux version 7.3.4-luo-out (a@b) (gcc) #1 SMP",
            "[    4.100000] kexec_core: Starting new kernel",
            "[    0.000000] Linux version 7.3.4-luo-in (a@b) (gcc) #1 SMP",
            "[    0.010000] KHO: exec from: 7.3.4-luo-out (count 1)",
            "[    0.400000] luo: Retrieved live update data, liveupdate number: 1",
        )
    )
    assert [boot.release for boot in console.boots] == ["7.3.4-luo-out", "7.3.4-luo-in"]
    assert console.kexecs == (1,)
    assert [(h.release, h.count) for h in console.handovers] == [("7.3.4-luo-out", 1)]
    assert console.luo_numbers == (1,)
    assert not console.splats


@pytest.mark.parametrize(
    "text",
    [
        "[    1.0] Kernel panic - not syncing: sysrq triggered crash",
        "[    1.0][    T1] BUG: unable to handle page fault for address: 0",
        "[    1.0] Oops: general protection fault, maybe for address 0x1: 0000 [#1]",
        "[    1.0] kernel BUG at mm/page_alloc.c:10!",
    ],
)
def test_fatal(text: str) -> None:
    assert is_fatal(text)
    assert parse(lines(text)).splats[0].fatal


@pytest.mark.parametrize(
    "text",
    [
        "[    1.0] WARNING: CPU: 0 PID: 1 at kernel/liveupdate/luo_file.c:1 f+0x1/0x2",
        "[    1.0] WARNING: kernel/liveupdate/kexec_handover.c:250 at kho_restore_page+0x1/0x2",
        "[    1.0] BUG: Bad page state in process init  pfn:1",
        "[    1.0] refcount_t: underflow; use-after-free.",
        "[    1.0] INFO: task init:1 blocked for more than 120 seconds.",
    ],
)
def test_splat_that_is_not_fatal(text: str) -> None:
    (splat,) = parse(lines(text)).splats
    assert not splat.fatal
    assert not is_fatal(text)


def test_a_warning_is_told_with_its_own_words() -> None:
    (splat,) = parse(
        lines(
            "[    1.4] ------------[ cut here ]------------",
            "[    1.4] Debug warning: early ioremap leak of 2 areas detected.",
            "[    1.4] WARNING: mm/early_ioremap.c:102 at check_early_ioremap_leak+0x29/0x36",
            "[    1.4] Modules linked in:",
        )
    ).splats
    assert splat.number == 3
    assert splat.text.startswith("WARNING: mm/early_ioremap.c:102 at check_early_ioremap_leak")
    assert splat.text.endswith("(Debug warning: early ioremap leak of 2 areas detected.)")


@pytest.mark.parametrize(
    "text",
    [
        "[    0.0] Spectre V2 : WARNING: Unprivileged eBPF is enabled",
        "[    0.0] debug: BUGs are found here",
        "[    0.0] clocksource: tsc-early: mask: 0xffffffffffffffff",
        "",
    ],
)
def test_no_splat(text: str) -> None:
    assert not parse(lines(text)).splats


_STALL = "[   23.9] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:"
_CALLS = ("[    2.9] NMI backtrace for cpu 0", "[    2.9] Call Trace:", "[    2.9]  <TASK>")


def test_the_trace_of_a_stall_is_part_of_it() -> None:
    (splat,) = parse(lines(_STALL, *_CALLS, *_CALLS)).splats
    assert splat.of_time


def test_a_task_that_hangs_is_told_with_where_it_waits() -> None:
    (splat,) = parse(
        lines(
            "[   20.8] INFO: task init:43 blocked for more than 10 seconds.",
            '[   20.8] "echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
            "[   20.8] Call Trace:",
            "[   20.8]  <TASK>",
            "[   20.8]  ? __schedule+0x517/0x55a",
            "[   20.8]  ? schedule_preempt_disabled+0x15/0x1f",
            "[   20.8]  ? rwsem_down_write_slowpath+0x370/0x3b5",
            "[   20.8]  ? down_write+0x24/0x42",
            "[   20.8]  ? vfio_pci_liveupdate_end+0x14/0x62",
            "[   20.8]  ? vfio_pci_liveupdate_unpreserve+0x84/0x9a",
            "[   20.8]  ? luo_file_unpreserve_files+0x69/0xee",
            "[   20.8]  ? luo_session_release+0x95/0xd3",
            "[   20.8]  </TASK>",
        )
    ).splats
    assert splat.of_time
    assert splat.text == (
        "INFO: task init:43 blocked for more than 10 seconds. Waits in vfio_pci_liveupdate_end,"
        " called by vfio_pci_liveupdate_unpreserve, called by luo_file_unpreserve_files"
    )


def test_what_only_lay_on_the_stack_is_not_where_it_waits() -> None:
    (splat,) = parse(
        lines(
            "[  120.8] INFO: task init:46 blocked in I/O wait for more than 100 seconds.",
            "[  120.8] Call Trace:",
            "[  120.8]  ? lock_release+0x1c/0x2f",
            "[  120.8]  __schedule+0x517/0x55a",
            "[  120.8]  folio_wait_bit_common+0x2f/0x48",
            "[  120.8]  ? _kstrtoull+0x15/0x1f",
            "[  120.8]  memfd_luo_preserve+0x14/0x62",
            "[  120.8]  luo_preserve_file+0x84/0x9a",
        )
    ).splats
    assert splat.waits_in == ("memfd_luo_preserve", "luo_preserve_file")


def test_any_other_trace_is_a_splat() -> None:
    warning = "[    1.4] WARNING: mm/early_ioremap.c:102 at check_early_ioremap_leak+0x29/0x36"
    boot = "[    0.0] Linux version 7.3.4-luo-in (me@there) (gcc) #1 SMP"
    for before in ((), (_STALL, warning), (_STALL, *("a line",) * 121), (_STALL, boot)):
        *_, last = parse(lines(*before, *_CALLS)).splats
        assert last.text == "Call Trace:"


def test_prefix() -> None:
    assert strip_prefix("<6>[    0.123456][    T0] text") == "text"
    assert strip_prefix("[    0.123456] text") == "text"
    assert strip_prefix("text") == "text"
