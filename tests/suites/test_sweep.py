# SPDX-License-Identifier: GPL-2.0-only
"""A sweep's lines -> points -> violations -> table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from common.checks.swept import KINDS, SweptCalls
from common.cli import sweep as verb
from common.cli.parser import build_parser, main
from common.errors import Exit, HarnessError, UsageError
from common.host.accel import Accelerator
from common.record.dialogue import Line
from common.run import stage_run
from common.stage.kernel_choice import KernelChoice, Origin
from common.stage.loading import load_stage
from common.stage.series import kernel_needs
from common.suites.sweep.points import (
    Point,
    Sweep,
    Swept,
    Violation,
    judge_point,
    read_sweep,
)
from common.suites.sweep.run import SWEEP_CONFIG, Ended, checked_point, read_folder, sweep_choice
from common.suites.sweep.table import table, uncut, violations
from tests.recorded_trial import RECORDED


def calls_of_stage(number: int) -> SweptCalls:
    calls = load_stage(number).swept_calls
    assert calls
    return calls


CALLS = calls_of_stage(1)
NAMED = {call.name: call for call in CALLS.all}
COUNTERS = "over= fds=0 pins=0 areas=0 shmem=0 committed=0 total=0 available=-4 taint=0"
FAILED = (
    "[    1.0] FAULT_INJECTION: forcing a failure.",
    "[    1.0] name failslab, interval 1, probability 0, space 0, times 0",
    "[    1.0] Call Trace:",
    "[    1.0]  <TASK>",
    "[    1.0]  dump_stack_lvl+0x5d/0x80",
    "[    1.0]  should_fail_ex+0x1a/0x2b",
    "[    1.0]  should_failslab+0x1a/0x2b",
    "[    1.0]  __kmalloc_cache_noprof+0x1a/0x2b",
    "[    1.0]  luo_preserve_file+0x1a/0x2b",
    "[    1.0]  luo_session_ioctl+0x1a/0x2b",
    "[    1.0]  </TASK>",
)


def lines(texts: Sequence[str]) -> list[Line]:
    return [Line(t=t, text=text) for t, text in enumerate(texts)]


def said(*points: str, more: Sequence[str] = ()) -> list[Line]:
    return lines(["KTAP version 1", "1..0", "# side=outgoing", *points, *more])


def point(name: str, words: str = "ret=0 left=0 steps=", counters: str = COUNTERS) -> str:
    return f"# point.{name}={words} {counters}"


REFERENCE = point("preserve_fd.slab.0", "ret=0 left=0 steps=resize_at_end:0,content:0")
CUT = "ret=-12 left=0 steps=resize:0,again:0,resize_at_end:0,content:0"
END = point("preserve_fd.slab.2", "ret=0 left=1 steps=resize_at_end:0,content:0")


def words_of(dialogue: list[Line], console: Sequence[str] = (), **more: object) -> list[str]:
    kho = more.get("kho", ())
    assert isinstance(kho, tuple)
    return [one.words for one in read_sweep(CALLS, lines(console), dialogue, kho).violations]


def test_a_point_after_which_all_is_as_before_is_no_violation() -> None:
    found = read_sweep(CALLS, [], said(REFERENCE, point("preserve_fd.slab.1", CUT), END))
    assert found.violations == ()
    (swept,) = found.calls
    assert [one.name for one in swept.points] == [
        "preserve_fd:slab:1"
    ]  # nothing failed in the second
    assert (swept.errors, swept.tolerated) == ({"ENOMEM": 1}, 0)


@pytest.mark.parametrize(
    ("words", "counters", "seen"),
    [
        (CUT.replace("again:0", "again:-17"), COUNTERS, "ENOMEM, and EEXIST when called again"),
        (CUT.replace("ret=-12", "ret=-22"), COUNTERS, "EINVAL, where memory was short"),
        (CUT.replace("ret=-12", "ret=-14"), COUNTERS, "EFAULT, where memory was short"),
        (CUT.replace("resize:0", "resize:-1"), COUNTERS, "resize: EPERM"),
        (CUT.replace("content:0", "content:-5"), COUNTERS, "content: EIO"),
        (CUT, COUNTERS.replace("pins=0", "pins=8"), "+8 pins"),
        (CUT, COUNTERS.replace("total=0", "total=-36"), "-36 KiB of MemTotal"),
        (CUT, COUNTERS.replace("fds=0", "fds=1"), "+1 open descriptors"),
        (CUT, COUNTERS.replace("taint=0", "taint=512"), "the kernel is tainted: 512"),
    ],
)
def test_what_is_not_as_before_is_a_violation(words: str, counters: str, seen: str) -> None:
    assert words_of(said(REFERENCE, point("preserve_fd.slab.1", words, counters))) == [seen]


def test_a_point_is_held_against_the_life_in_which_nothing_failed() -> None:
    """A life in the incoming kernel gives back what came: MemTotal grows."""
    grown = COUNTERS.replace("total=0", "total=48")
    short = COUNTERS.replace("total=0", "total=12")
    reference = point("finish.slab.0", counters=grown)
    assert words_of(said(reference, point("finish.slab.1", counters=grown))) == []
    assert words_of(said(reference, point("finish.slab.1", counters=short))) == [
        "-36 KiB of MemTotal"
    ]


def test_a_retrieve_that_failed_may_have_failed_for_good_and_no_other_call_may() -> None:
    changes = dict.fromkeys(("fds", "pins", "areas", "shmem", "committed", "total", "kho"), 0)
    changes["taint"] = 0
    for call, faults in (("retrieve_fd", []), ("finish", ["ENOMEM, and ENOMEM when called again"])):
        cut = Point(call, "slab", 1, -12, True, {"again": -12}, changes)
        reference = Point(call, "slab", 0, 0, False, {}, changes)
        assert judge_point(cut, reference, NAMED[call]) == faults


def test_pages_that_stay_registered_with_kho_are_seen_by_the_host() -> None:
    kho = (
        ("warm_up:0", 9),
        ("preserve_fd:0", 9),
        ("preserve_fd:slab:1", 17),
        ("preserve_fd:2", 17),
    )
    dialogue = said(REFERENCE, point("preserve_fd.slab.1", CUT), END)
    assert words_of(dialogue, kho=kho) == ["+8 pages registered with KHO"]


LEFT = COUNTERS.replace("over=", "over=fds:0,pins:0,areas:0,total:0")


def test_a_call_that_failed_has_changed_nothing_though_it_succeeds_when_made_again() -> None:
    assert words_of(said(REFERENCE, point("preserve_fd.slab.1", CUT, LEFT), END)) == []
    pinned = point("preserve_fd.slab.1", CUT, LEFT.replace("pins:0", "pins:8"))
    assert words_of(said(REFERENCE, pinned, END)) == ["+8 pins left by the call that failed"]
    name = "preserve_fd:slab:1"
    kho = (("warm_up:0", 9), (f"{name}:armed", 9), (f"{name}:failed", 17), (name, 9))
    dialogue = said(REFERENCE, point("preserve_fd.slab.1", CUT, LEFT), END)
    left = "+8 pages registered with KHO left by the call that failed"
    assert words_of(dialogue, kho=kho) == [left]
    with pytest.raises(ValueError, match="preserve_fd:slab:1:failed was not counted before"):
        words_of(dialogue, kho=kho[2:])


def test_what_a_cut_session_is_in_the_next_kernel_is_held_against_one_that_was_not_cut() -> None:
    whole = "ret=0 left=0 steps=retrieve_fd:0,content:0,retrieve_other:0,other_content:0,finish:0"
    cut = "ret=-12 left=0 steps=again:0"
    kept = (
        point("preserve_kept.slab.0", "ret=0 left=0 steps=again:0"),
        point("preserve_kept.slab.1", cut),
        "# side=incoming",
        point("arrived.slab.0", whole),
    )
    for arrived, words in (
        ([point("arrived.slab.1", whole)], []),
        (
            [point("arrived.slab.1", whole.replace("content:0", "content:-5", 1))],
            ["in the next kernel: content: EIO"],
        ),
        ([], ["in the next kernel: the session has not arrived"]),
    ):
        found = read_sweep(CALLS, [], said(*kept, *arrived)).violations
        assert [one.words for one in found] == words
        assert all(one.point == "preserve_kept:slab:1" for one in found)
    assert read_sweep(CALLS, [], said(*kept[:2])).violations == ()
    with pytest.raises(ValueError, match="no arrived:slab:0 to compare"):
        read_sweep(CALLS, [], said(*kept[:3], point("arrived.slab.1", whole)))


def test_a_splat_belongs_to_the_point_whose_mark_came_before_it() -> None:
    console = (
        "[    1.0] sweep: preserve_fd:slab:0",
        "[    1.0] sweep: preserve_fd:slab:1",
        *FAILED,
        "[    1.1] WARNING: kernel/liveupdate/luo_file.c:600 at luo_retrieve_file+0x1/0x2",
        "[    1.2] sweep: preserve_fd:slab:2",
    )
    dialogue = said(REFERENCE, point("preserve_fd.slab.1", CUT), END)
    (one,) = read_sweep(CALLS, lines(console), dialogue).violations
    assert one.point == "preserve_fd:slab:1"
    assert one.words.startswith("console: WARNING: kernel/liveupdate/luo_file.c:600")
    assert one.where == "failslab in luo_preserve_file < luo_session_ioctl"


def test_the_stack_of_the_failure_itself_is_no_splat() -> None:
    console = ("[    1.0] sweep: preserve_fd:slab:1", *FAILED, "[    1.2] sweep: end")
    dialogue = said(REFERENCE, point("preserve_fd.slab.1", CUT), END)
    assert words_of(dialogue, console) == []


def test_a_call_that_says_that_memory_is_short_is_no_splat() -> None:
    """mm/page_alloc.c:warn_alloc()."""
    short = (
        "[    1.0] init: vmalloc error: size 128, align 0x1, vm_struct allocation failed,"
        " mode:0xdc0(GFP_KERNEL|__GFP_ZERO), nodemask=(null)"
    )
    console = ("[    1.0] sweep: preserve_fd:slab:1", short, *FAILED[2:], "[    1.2] sweep: end")
    dialogue = said(REFERENCE, point("preserve_fd.slab.1", CUT), END)
    assert words_of(dialogue, console) == []


def test_a_copy_is_counted_once() -> None:
    """It is there in each kind, and the point of kind "copy" tells of it."""
    failed = [text.replace("failslab", "fail_usercopy") for text in FAILED]
    bad = point("preserve_fd.slab.1", CUT.replace("ret=-12", "ret=-14").replace("n:0", "n:-17"))
    console = ("[    1.0] sweep: preserve_fd:slab:1", *failed, "[    1.2] sweep: end")
    found = read_sweep(CALLS, lines(console), said(REFERENCE, bad, END))
    assert (found.violations, found.calls[0].points) == ((), ())


def test_a_reboot_that_goes_through_says_what_failed_beyond_the_point_of_no_return() -> None:
    console = (
        "[    1.0] sweep: reboot:any:1",
        *FAILED,
        "[    0.0] Linux version 7.3.4",
        "[    1.0] sweep: finish:slab:0",
    )
    arrived = lines(["KTAP version 1", "1..0", "# side=incoming", point("finish.slab.0")])
    found = read_sweep(CALLS, lines(console), arrived)
    assert found.whole("reboot:any:1")
    told = list(uncut(found))
    where = "failslab in luo_preserve_file < luo_session_ioctl"
    assert f"reboot: the first that fails [{where}] lies where nothing can come back" in told


def test_what_came_before_the_first_point_and_after_the_last_is_looked_at() -> None:
    console = (
        "[    0.1] WARNING: early",
        "[    1.0] sweep: preserve_fd:slab:1",
        "[    1.2] sweep: end",
        "[    9.0] unreferenced object 0xffff888001234567 (size 32):",
    )
    leak = ("# kmemleak.objects=1", "# kmemleak.first=unreferenced object (size 32)")
    found = words_of(said(REFERENCE, point("preserve_fd.slab.1", CUT), END, more=leak), console)
    assert found == [
        "kmemleak: 1 objects, unreferenced object (size 32)",
        "console: WARNING: early",
        "console: unreferenced object 0xffff888001234567 (size 32):",
    ]


def test_a_point_that_was_begun_and_never_told_is_named() -> None:
    console = ("[    1.0] sweep: preserve_fd:slab:0", "[    1.0] sweep: preserve_fd:slab:1")
    assert read_sweep(CALLS, lines(console), said(REFERENCE)).unfinished == "preserve_fd:slab:1"


@pytest.mark.parametrize("words", ["", "ret=x left=0 steps=", "ret=0 left=0 steps=again"])
def test_a_point_that_cannot_be_read_is_an_error(words: str) -> None:
    with pytest.raises(ValueError, match="is not a point"):
        read_sweep(CALLS, [], said(point("preserve_fd.slab.0", words)))


def test_a_call_without_its_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match="no preserve_fd:slab:0"):
        read_sweep(CALLS, [], said(point("preserve_fd.slab.1", CUT)))


def test_the_table_and_the_command_that_shows_a_point_again() -> None:
    bad = CUT.replace("again:0", "again:-17")
    swept = [f"# swept.preserve_fd.{kind}=1" for kind in KINDS]
    found = read_sweep(
        CALLS, [], said(REFERENCE, point("preserve_fd.slab.1", bad), END, more=swept)
    )
    head, _, row = table(found).splitlines()
    assert head.split("  ")[0] == "call"
    assert row.split() == ["preserve_fd", "0", "1", "0", "0", "1", "ENOMEM", "-", "1"]
    assert list(violations(found, 1)) == [
        "preserve_fd:slab:1: ENOMEM, and EEXIST when called again"
        "  (./kexec-stages sweep 1 --point preserve_fd:slab:1)"
    ]
    told = list(uncut(found))
    assert "finish: the kernels did not come to it" in told
    assert told[-1] == f"1 of {len(CALLS.all)} calls were cut at every point that they have"


def test_a_call_with_points_left_is_told() -> None:
    more = ["# swept.preserve_fd.copy=3", "# swept.preserve_fd.slab=more than 1999"]
    found = read_sweep(CALLS, [], said(REFERENCE, point("preserve_fd.slab.1", CUT), more=more))
    told = "preserve_fd: not every point was tried (slab, page), after 1 in all"
    assert told in list(uncut(found))


@pytest.mark.parametrize(
    "text",
    ["finish", "finish:1", "finish:slab:0", "open:slab:1", "finish:any:1", "finish:slab:1234567"],
)
def test_a_point_that_cannot_be_meant_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="give CALL:KIND:N"):
        checked_point(text, CALLS)


def test_a_point_is_taken_as_it_was_printed() -> None:
    for text in ("finish_unretrieved:page:12", "reboot:any:1"):
        assert checked_point(text, CALLS) == text


def test_the_kernels_are_those_of_the_debug_lane_that_fail_where_they_are_told_to(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own.config"
    own.write_text("CONFIG_KSM=y\n")
    stage, choice = sweep_choice(load_stage(1), KernelChoice(config=(own,)))
    assert [path.name for path in kernel_needs(stage).certain][-3:] == [
        "debug.config",
        "sweep.config",
        "own.config",
    ]
    assert choice.config == (SWEEP_CONFIG, own)


def test_a_stage_without_a_sweep_and_an_image_are_usage_errors() -> None:
    without = replace(load_stage(3), swept_calls=None)
    with pytest.raises(UsageError, match="stage 3 has no sweep of calls"):
        sweep_choice(without, KernelChoice())
    image = Origin("image", "bzImage")
    with pytest.raises(UsageError, match="no --image"):
        sweep_choice(load_stage(1), KernelChoice(outgoing=image, incoming=image))


def test_the_verb_is_there() -> None:
    parsed: argparse.Namespace = build_parser().parse_args(
        ["sweep", "1", "--point", "finish:slab:3"]
    )
    assert (parsed.target, parsed.stage, parsed.point) == ("sweep:sweep", 1, "finish:slab:3")


RUN = RECORDED / "sweep"
BAD = Sweep(
    CALLS,
    (Swept(NAMED["preserve_fd"], violations=(Violation("preserve_fd:slab:1", "+8 pins"),)),),
)
REST = Sweep(CALLS, (Swept(NAMED["finish"], unexhausted=("page",)),))
BEGUN = Sweep(CALLS, unfinished="finish:slab:3")


def test_a_recorded_sweep_of_stock_linux() -> None:
    found = read_folder(RUN, CALLS)
    rows = [" ".join(line.split()) for line in table(found).splitlines()[2:]]
    assert rows[1:4] == [
        "preserve_fd 2 18 8 13 2 EFAULT, 13 ENOMEM - 1",
        "preserve_second 2 7 7 4 2 EFAULT, 10 ENOMEM - 1",
        "close_preserved 0 1 0 1 - - -",
    ]
    assert rows[7].endswith("2 EFAULT, 3 EINVAL, 2 ENOMEM, 1 ENOSPC 6 6")
    told = list(violations(found, 1))
    assert len(told) == 27
    assert told[3] == (
        "retrieve_session:copy:2 [fail_usercopy in luo_ucmd_respond.constprop.0"
        " < luo_ioctl_retrieve_session < luo_ioctl]: +92 KiB of MemTotal left by the call that"
        " failed; EFAULT, and ENOENT when called again"
        "  (./kexec-stages sweep 1 --point retrieve_session:copy:2)"
    )
    assert list(uncut(found))[-1] == "10 of 11 calls were cut at every point that they have"
    assert found.unfinished is None


def test_what_the_host_counted_is_held_against_what_the_kernel_says(tmp_path: Path) -> None:
    """A recorded sweep whose count is one page more after a point, and stays so."""
    for file in RUN.glob("*.jsonl"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    counted = [json.loads(line) for line in (RUN / "kho.jsonl").read_text().splitlines()]
    first = [name for name, _ in counted].index("create_session:copy:1")
    more = [[point, pages + (n >= first)] for n, (point, pages) in enumerate(counted)]
    (tmp_path / "kho.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    (new,) = set(violations(read_folder(tmp_path, CALLS), 1)) - set(
        violations(read_folder(RUN, CALLS), 1)
    )
    assert "create_session:copy:1 [" in new
    assert "+1 pages registered with KHO" in new


def test_a_damaged_folder_is_the_harness_error(tmp_path: Path) -> None:
    for file in RUN.glob("*.jsonl"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "kho.jsonl").write_text('["preserve_fd:slab:1"]\n')
    with pytest.raises(HarnessError, match=r"kho\.jsonl"):
        read_folder(tmp_path, CALLS)


@pytest.mark.parametrize(
    ("found", "ended", "status", "told"),
    [
        (Sweep(CALLS, tuple(map(Swept, CALLS.all))), Ended(Exit.PASS), Exit.PASS, "0 of 11 calls"),
        (Sweep(CALLS), Ended(Exit.PASS), Exit.HARNESS, "did not come to it"),
        (BAD, Ended(Exit.PASS), Exit.FAIL, "preserve_fd:slab:1: +8 pins"),
        (
            Sweep(CALLS, (Swept(NAMED["finish"], unexhausted=("page",)),)),
            Ended(Exit.PASS),
            Exit.HARNESS,
            "page",
        ),
        (
            Sweep(CALLS, unfinished="finish:slab:3"),
            Ended(Exit.CRASHED, "died"),
            Exit.CRASHED,
            "died at f",
        ),
        (BAD, Ended(Exit.TIMEOUT, "silent"), Exit.TIMEOUT, "silent"),
        (Sweep(CALLS), Ended(Exit.HARNESS, "could not go on"), Exit.HARNESS, "could not go on"),
        (BAD, Ended(Exit.HARNESS, "could not go on"), Exit.FAIL, "could not go on"),
    ],
)
def test_the_exit_status_says_what_was_found(
    found: Sweep,
    ended: Ended,
    status: Exit,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "sweep.part"
    folder.mkdir()
    monkeypatch.setattr(verb, "Hypervisor", lambda _uri: nullcontext())
    monkeypatch.setattr(stage_run, "new_run_folder", lambda *_words: folder)
    monkeypatch.setattr(verb, "probe", lambda *_given, **_words: Accelerator("tcg", "a test"))
    monkeypatch.setattr(verb, "run_sweep", lambda *_words, **_more: (found, ended))
    assert main(["sweep", "1"]) == status
    assert told in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


@pytest.mark.parametrize(
    ("name", "there"),
    [("preserve_fd:slab:1", True), ("preserve_fd:slab:2", False), ("reboot:any:1", False)],
)
def test_one_point_that_is_not_there_is_no_pass(name: str, there: bool) -> None:
    """Nothing failed in the second life, and no kernel came after the reboot."""
    found = read_sweep(CALLS, [], said(REFERENCE, point("preserve_fd.slab.1", CUT), END))
    assert found.whole(name) is there
    assert bool(list(uncut(found, name))) is not there


DEVICE_CALLS = calls_of_stage(2)


def of_a_device(*points: str, more: Sequence[str] = ()) -> Sweep:
    return read_sweep(DEVICE_CALLS, [], said(*points, more=more))


@pytest.mark.parametrize(("fds", "seen"), [(1, []), (0, ["-1 open descriptors"])])
def test_a_call_that_succeeds_though_something_failed_does_all_of_it(
    fds: int, seen: list[str]
) -> None:
    """An error that is swallowed: what the call is to make is not there, and is asked for later."""

    def made(name: str, count: int, left: int = 0) -> str:
        words = f"ret=0 left={left} steps="
        return point(name, words, f"made=fds:{count},pins:0,areas:0,total:0 {COUNTERS}")

    dialogue = said(
        made("create_session.slab.0", 1),
        made("create_session.slab.1", fds),
        made("create_session.slab.2", 1, 1),
    )
    assert words_of(dialogue) == [f"{words} by the call that succeeded" for words in seen]


@pytest.mark.parametrize(
    ("words", "counters", "seen"),
    [
        ("ret=-12 left=0 steps=config:0,unbound:0", COUNTERS, []),
        (
            "ret=-12 left=0 steps=config:-52,unbound:0",
            COUNTERS.replace("pins=0", "pins=4"),
            ["config: EBADE; +4 pins"],
        ),
        # What it changed where it went through is not known.
        ("ret=0 left=0 steps=config:0", COUNTERS.replace("fds=0", "fds=1"), []),
        (
            "ret=-12 left=1 steps=config:0",
            COUNTERS,
            ["ENOMEM, where nothing was made to fail"],
        ),
    ],
)
def test_where_a_call_goes_through_only_once_a_failure_changes_nothing(
    words: str, counters: str, seen: list[str]
) -> None:
    found = of_a_device(point("bind_device.slab.1", words, counters))
    assert [one.words for one in found.violations] == seen


def test_a_call_that_went_through_once_is_not_tried_further() -> None:
    through = of_a_device(
        point("bind_device.slab.1", "ret=-12 left=0 steps="),
        more=[f"# swept.bind_device.{kind}=1" for kind in KINDS],
    )
    assert next(iter(through.calls)).unexhausted == ()
    early = of_a_device(
        point("bind_device.slab.1", "ret=0 left=0 steps="),
        more=[
            "# swept.bind_device.copy=0",
            "# swept.bind_device.slab=more than 1",
            "# swept.bind_device.page=0",
        ],
    )
    (bound,) = early.calls
    assert bound.unexhausted == ("slab",)
    assert "bind_device: not every point was tried (slab), after 1 in all" in list(uncut(early))


def test_a_recorded_sweep_of_calls_that_go_through_once() -> None:
    """Stage 3: what our series does has no violation; two faults of Linux are met on the way."""
    calls = calls_of_stage(3)
    found = read_folder(RECORDED / "sweep_iommufd", calls)
    rows = {row.split()[0]: " ".join(row.split()) for row in table(found).splitlines()[2:]}
    assert rows["restore_hwpt"] == "restore_hwpt 2 6 0 3 2 EFAULT, 3 ENOMEM - -"
    by_call = {swept.call.name: len(swept.violations) for swept in found.calls if swept.violations}
    assert by_call == {"bind_device": 19, "map_memory": 1}
    assert all("vfio_group_release" in one.words for one in found.calls[8].violations)
    assert list(uncut(found))[-1] == "12 of 15 calls were cut at every point that they have"
    assert not found.whole()
    kept = [replace(call, keeps=frozenset()) for call in calls.incoming]
    strict = read_folder(RECORDED / "sweep_iommufd", replace(calls, incoming=tuple(kept)))
    new = {one.point for one in strict.violations} - {one.point for one in found.violations}
    assert new == {"restore_hwpt:copy:2", "restore_hwpt:slab:4"}
