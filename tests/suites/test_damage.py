# SPDX-License-Identifier: GPL-2.0-only
"""Damaged records: found in memory that was made up, and judged from recorded lives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from common.cli import sweep as verb
from common.cli.parser import main
from common.errors import Exit, HarnessError, UsageError
from common.machine.ram import MachineRam
from common.suites.damage import layouts, run
from common.suites.damage.layouts import Record
from common.suites.damage.lives import TooLate, change_ram
from common.suites.damage.points import (
    Change,
    Point,
    checked_name,
    point_named,
    points,
    random_points,
)
from common.suites.damage.record import read_point
from common.suites.damage.run import check_controls, judged, stored
from common.suites.damage.table import line, summary
from common.suites.damage.verdict import Verdict, as_it_should, judge, of_the_next_kernel
from tests.recorded_trial import RECORDED

RUN = RECORDED / "damage"
Edit = Callable[[str], str]


class Ram:
    """64 KiB of memory in which each byte is another one than those beside it."""

    def __init__(self) -> None:
        self.bytes = bytearray(n % 251 + 1 for n in range(1 << 16))

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.bytes[address : address + length])

    def put(self, address: int, value: int, size: int) -> None:
        self.bytes[address : address + size] = value.to_bytes(size, "little")


def block(ram: Ram, *, count: int = 3) -> tuple[Record, ...]:
    ram.put(4104, count, 8)
    return (Record("sessions", 4096, 16, layouts.BLOCK),)


def names(found: list[Point]) -> list[str]:
    return [point.name for point in found]


def test_a_damage_is_done_to_the_bytes_that_it_was_made_for() -> None:
    ram = cast(MachineRam, Ram())
    with pytest.raises(HarnessError, match=r"control\.guest\.byte: 65 stands at 0x64, where 00"):
        change_ram(ram, Point("control.guest.byte", (Change(100, b"\0", b"\1"),)))


def changed(ram: Ram, point: Point) -> Ram:
    for change in point.changes:
        assert ram.read(change.address, len(change.before)) == change.before
        ram.bytes[change.address : change.address + len(change.after)] = change.after
    return ram


def test_each_field_is_damaged_in_each_way_that_its_sort_has() -> None:
    ram = Ram()
    assert names(points(block(ram), ram.read, 1)) == [
        *("sessions.next.zero", "sessions.next.bit", "sessions.next.huge"),
        *("sessions.count.zero", "sessions.count.one", "sessions.count.plus"),
        "sessions.count.huge",
    ]


def test_what_changes_nothing_is_no_point() -> None:
    ram = Ram()
    assert "sessions.count.one" not in names(points(block(ram, count=1), ram.read, 1))
    none = names(points(block(ram, count=0), ram.read, 1))
    assert "sessions.count.zero" not in none
    assert "sessions.count.plus" not in none  # it is what "one" does


@pytest.mark.parametrize(
    ("name", "at", "seen"),
    [
        ("sessions.count.zero", 4104, bytes(8)),
        ("sessions.count.plus", 4104, (4).to_bytes(8, "little")),
        ("sessions.count.huge", 4104, b"\xff" * 8),
        ("sessions.next.huge", 4096, b"\x00\xf0" + b"\xff" * 6),
    ],
)
def test_what_a_kind_does(name: str, at: int, seen: bytes) -> None:
    ram = Ram()
    point = point_named(name, block(ram), ram.read, 1)
    assert changed(ram, point).read(at, 8) == seen


def test_an_address_with_a_bit_flipped_is_one_of_another_page() -> None:
    ram = Ram()
    for seed in range(1, 40):
        (change,) = point_named("sessions.next.bit", block(ram), ram.read, seed).changes
        before, after = (int.from_bytes(b, "little") for b in (change.before, change.after))
        assert (before ^ after).bit_count() == 1
        assert before ^ after in range(1 << 12, 1 << 28)


def test_records_beside_each_other_are_exchanged_and_repeated() -> None:
    ram = Ram()
    size = layouts.size_of(layouts.FILE)
    file = (Record("file", 4096, size, layouts.FILE, 4096 + size),)
    first, second = ram.read(4096, size), ram.read(4096 + size, size)
    swapped = changed(ram, point_named("file.all.swap", file, ram.read, 1))
    assert (swapped.read(4096, size), swapped.read(4096 + size, size)) == (second, first)
    ram = Ram()
    repeated = changed(ram, point_named("file.all.repeat", file, ram.read, 1))
    assert repeated.read(4096, size) == repeated.read(4096 + size, size) == second


def test_points_depend_on_the_seed_alone() -> None:
    ram = Ram()
    for seed in (1, 2):
        assert points(block(ram), ram.read, seed) == points(block(ram), ram.read, seed)
        some = random_points(block(ram), ram.read, seed, 5)
        assert some == random_points(block(ram), ram.read, seed, 5)
        assert len(some) == 5
    assert names(random_points(block(ram), ram.read, 1, 5)) != names(
        random_points(block(ram), ram.read, 2, 5)
    )


def test_a_random_point_can_be_tried_again_by_its_name() -> None:
    ram = Ram()
    for point in random_points(block(ram), ram.read, 7, 10):
        assert checked_name(point.name) == point.name
        assert point_named(point.name, block(ram), ram.read, 1) == point


@pytest.mark.parametrize("text", ["", "memfd", "memfd.folios", "memfd.folios.+x01", "../x.y.z"])
def test_a_name_that_cannot_be_meant_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="give RECORD"):
        checked_name(text)


def test_a_point_that_is_not_there_is_a_usage_error_that_names_the_records() -> None:
    ram = Ram()
    with pytest.raises(UsageError, match="the records are sessions"):
        point_named("memfd.folios.huge", block(ram), ram.read, 1)


VERDICTS = {
    "fdt.magic.bit": ("VIOLATION", "double fault"),
    "metadata.count.zero": ("TAKEN OVER", "it is only printed"),
    "luo.flbs.zero": ("VIOLATION", "FINISH succeeded, and the device writes when finished"),
    "session.name.value": ("VIOLATION", "nothing was taken over, and the device writes"),
    "pci.crc.bit": ("REFUSED", "panic: liveupdate: FLB 'pci-live-v1' cannot be taken over: -74"),
    "memfd.size.plus": ("VIOLATION", "4096:2359297:0 where 4096:2359296:0 was handed over"),
    "page-memfd.memfd.lost": ("REFUSED", "pci 0000:03:00.0: stopped, nobody retrieved it"),
}


def test_a_recorded_sweep_is_judged_from_its_raw_files() -> None:
    verdicts, left = judged(RUN)
    assert left == []
    assert {one.point: one.status for one in verdicts} == {k: v for k, (v, _) in VERDICTS.items()}
    for one in verdicts:
        assert VERDICTS[one.point][1] in one.why
    assert next(v for v in verdicts if v.point.startswith("page-")).warned
    *_, last = summary(verdicts).splitlines()
    assert last.split() == ["all", "7", "2", "1", "4", "1"]


def copied(tmp_path: Path, point: str, file: str, edit: Edit) -> Path:
    folder = tmp_path / "damage"
    shutil.copytree(RUN, folder)
    path = folder / "points" / point / file
    before = path.read_text()
    path.write_text(edit(before))
    assert path.read_text() != before
    return folder


def verdict_on(folder: Path, point: str) -> Verdict:
    return judge(read_point(folder, point), read_point(folder, "none"))


def life(**changes: Any) -> Edit:
    def edit(text: str) -> str:
        return json.dumps(json.loads(text) | changes)

    return edit


def of_device(when: str, **changes: int) -> Edit:
    def edit(text: str) -> str:
        read = json.loads(text)
        read["device"][when] |= changes
        return json.dumps(read)

    return edit


def replaced(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new)


@pytest.mark.parametrize(
    ("file", "edit", "why"),
    [
        ("point.json", of_device("closed", landed=8), "the device writes when closed"),
        ("point.json", of_device("finished", elsewhere=1), "memory that is not its own"),
        ("point.json", of_device("finished", landed=0), "does not write any more"),
        ("point.json", replaced('"moved": 0', '"moved": 2'), "2 of its pages elsewhere"),
        ("point.json", life(looks={"retrieved": {"stage.1": None}}), "could not be seen"),
        ("point.json", life(ended="silent", detail="for 40 s"), "silent: for 40 s"),
        ("point.json", life(ended="reset", detail="the machine was reset"), "reset"),
        ("point.json", life(ended="bail", detail="why"), "the workload could not go on: why"),
        ("dialogue.jsonl", replaced("finish.stage=0", "other=0"), "never finished"),
        ("dialogue.jsonl", replaced("4660:32768:4", "4660:32768:0"), "4660:32768:0 where"),
        (
            "dialogue.jsonl",
            replaced("file.stage.1=0", "file.stage.1=-2"),
            "is gone, without a message",
        ),
        ("dialogue.jsonl", lambda _text: "", "the incoming side said nothing"),
        ("console.jsonl", replaced("Run /init", "BUG: KASAN: x"), "BUG: KASAN: x"),
        ("console.jsonl", replaced("Run /init", "Oops: general x"), "Oops: general x"),
        ("console.jsonl", replaced("Run /init", "PANIC: early exception"), "early exception"),
        (
            "console.jsonl",
            replaced("Run /init", "Kernel panic - not syncing: Attempted to kill init"),
            "does not name what is wrong",
        ),
    ],
)
def test_what_makes_a_life_a_violation(tmp_path: Path, file: str, edit: Edit, why: str) -> None:
    folder = copied(tmp_path, "metadata.count.zero", file, edit)
    verdict = verdict_on(folder, "metadata.count.zero")
    assert verdict.status == "VIOLATION"
    assert why in verdict.why


def traced(tmp_path: Path, event: str, *, before: bool = False) -> Path:
    """A copy in which QEMU has traced this after the next kernel's first line, or before it."""
    recorded = read_point(RUN, "pci.crc.bit")
    first = of_the_next_kernel(recorded.console)[0].t + (-1_000_000 if before else 1_000_000)
    us = (first + recorded.life.clock_offset_ns) // 1000
    said = f"1@{us // 10**6}.{us % 10**6:06}:{event}\n"
    return copied(tmp_path, "pci.crc.bit", "qemu-trace.log", lambda text: text + said)


def test_the_kernel_that_leaves_hands_over_its_iommu(tmp_path: Path) -> None:
    event = "vtd_reg_dmar_root addr 0x6e4000 scalable 0"
    folder = traced(tmp_path, event, before=True)
    assert verdict_on(folder, "pci.crc.bit").status == "REFUSED"
    shutil.rmtree(folder)
    assert verdict_on(traced(tmp_path, event), "pci.crc.bit").status == "VIOLATION"


def test_a_panic_after_the_hardware_was_touched_is_a_violation(tmp_path: Path) -> None:
    folder = traced(tmp_path, "pci_cfg_write igb 03:00.0 @0x4 <- 0x100")
    verdict = verdict_on(folder, "pci.crc.bit")
    assert verdict.status == "VIOLATION"
    assert "it touched the hardware before its panic (pci_cfg_write igb 03:00.0" in verdict.why


def test_another_device_may_be_touched(tmp_path: Path) -> None:
    folder = traced(tmp_path, "pci_cfg_write igb 04:00.0 @0x4 <- 0x100")
    assert verdict_on(folder, "pci.crc.bit").status == "REFUSED"


def test_what_nobody_can_explain_is_a_violation(tmp_path: Path) -> None:
    """The life of a point without meaning, as that of one which has a meaning."""
    folder = tmp_path / "damage"
    shutil.copytree(RUN, folder)
    place = folder / "points" / "vfio.bdf.bit"
    shutil.copytree(folder / "points" / "metadata.count.zero", place)
    text = (place / "point.json").read_text().replace("metadata.count.zero", "vfio.bdf.bit")
    (place / "point.json").write_text(text)
    assert verdict_on(folder, "vfio.bdf.bit").why == "taken over as if nothing had been changed"


def test_the_kernel_that_leaves_may_complain_of_the_time(tmp_path: Path) -> None:
    complaint = '[1, "[ 1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!"]\n'
    folder = copied(tmp_path, "none", "console.jsonl", lambda text: complaint + text)
    assert as_it_should(read_point(folder, "none")) is None


def test_an_undamaged_life_that_is_not_taken_over_is_the_harness_error(tmp_path: Path) -> None:
    folder = copied(tmp_path, "none", "dialogue.jsonl", replaced("finish.stage=0", "x=0"))
    with pytest.raises(HarnessError, match="nothing was damaged, and yet"):
        check_controls(folder)
    shutil.rmtree(folder)
    folder = copied(tmp_path, "none", "point.json", of_device("retrieved", landed=0))
    with pytest.raises(HarnessError, match="the device no longer writes"):
        check_controls(folder)


def test_a_byte_of_a_file_that_nobody_sees_is_the_harness_error(tmp_path: Path) -> None:
    folder = tmp_path / "damage"
    shutil.copytree(RUN, folder)
    text = (folder / "points" / "none" / "point.json").read_text()
    text = text.replace('"point": "none"', '"point": "control.guest.byte"')
    (folder / "points" / "control.guest.byte" / "point.json").write_text(text)
    with pytest.raises(HarnessError, match="the host did not notice"):
        check_controls(folder)


def test_a_damaged_record_is_the_harness_error(tmp_path: Path) -> None:
    folder = copied(tmp_path, "pci.crc.bit", "point.json", lambda text: text[:-20])
    with pytest.raises(HarnessError, match=r"point\.json"):
        judged(folder)


def test_a_line_of_the_table() -> None:
    told = line(Verdict(point="a.b.bit", status="REFUSED", why="w" * 200, warned="x"))
    assert told.startswith("REFUSED     a.b.bit  ")
    assert told.endswith("w… [warned: x]")


def test_what_was_asked_for_is_known_of_a_stored_sweep() -> None:
    assert (stored(RUN, 2).seed, stored(RUN, 2).random) == (1, 0)
    with pytest.raises(UsageError, match="is of stage 2"):
        stored(RUN, 1)
    with pytest.raises(UsageError, match="--resume"):
        stored(RUN / "points", 2)


def test_a_stored_sweep_is_judged_again_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verb, "Hypervisor", lambda _uri: nullcontext())
    assert main(["sweep", "2", "--damage", "--resume", str(RUN)]) == Exit.FAIL
    assert "all" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--random", "3"], "go with --damage"),
        (["--seed", "3"], "go with --damage"),
        (["--lane", "debug"], "go with --damage"),
        (["--damage", "--point", "finish:slab:3"], "give RECORD"),
        (["--damage", "--resume", str(RUN), "--seed", "2"], "keeps the options of its sweep"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "2", *words]) == Exit.USAGE
    assert said in capsys.readouterr().err


def test_a_machine_that_was_stopped_too_late_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    @contextmanager
    def standing(_bench: object, folder: Path) -> Iterator[str]:
        folder.mkdir()
        made.append(folder.name)
        if len(made) < 3:
            raise TooLate("too late")
        yield "there"

    monkeypatch.setattr(run, "standing", standing)
    with run.in_time(cast(Any, None), tmp_path) as machine:
        assert cast(Any, machine) == "there"
    assert made == ["machine-1", "machine-2", "machine-3"]


def test_one_that_never_isin_time_is_the_harness_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def standing(_bench: object, folder: Path) -> None:
        folder.mkdir()
        raise TooLate("too late")

    monkeypatch.setattr(run, "standing", standing)
    with pytest.raises(TooLate), run.in_time(cast(Any, None), tmp_path):
        pass
    assert len(list(tmp_path.iterdir())) == 5
