# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel runs, as the host sees it: registers, page tables, notes, what follows of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.checks.model import Outcome
from common.errors import UsageError
from common.judge.verdict import judge_trial
from common.record.cpus.kernel_layout import KernelLayout, build_id_of_note
from common.record.cpus.page_tables import START_MAP, image_start, walk
from common.record.cpus.samples import FILE, CpuWitness, read_samples
from common.record.cpus.state import parse_registers
from common.record.evidence import Trial
from common.stage.loading import load_stage
from tests.recorded_trial import KVM_MEMFD, RecordedTrial

STAGE = load_stage(1)
ID = bytes(range(20))
NOTE = struct.pack("<III4s", 4, 20, 3, b"GNU\0") + ID
BANNER = b"Linux version 7.3.4-luo-out (x) #1\n\0"
LAYOUT = KernelLayout(
    text=0xFFFFFFFF81000000,
    text_ranges=((0xFFFFFFFF81000000, 0xFFFFFFFF81010000),),
    note=0xFFFFFFFF81020000,
    banner=0xFFFFFFFF81021000,
)
IMAGE, PHYSICAL, CR3 = 0xFFFFFFFFB7400000, 0x600000, 0x1000
REGISTERS = """
CPU#0
RAX=0000000000000063 RSP=ffffffffb7803c90
RIP={rip:016x} RFL=00000206 [-----P-] CPL={cpl} II=0 A20=1 SMM=0 HLT={hlt}
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
GS =0000 ffff8a766e45e000 00000000 00000000
IDT=     ffffffffb39c3000 00000fff
CR0=80050033 CR2=ffff8f0000000010 CR3={cr3:016x} CR4=000100b0
EFER=0000000000000d01
"""


class Ram:
    """64 MiB, all of it zeros but for a kernel and its page tables."""

    def __init__(self, *, five: bool = False) -> None:
        self.bytes = bytearray(64 << 20)
        tables = [0x1000, 0x2000, 0x3000, 0x4000, 0x5000][0 if five else 1 :]
        tables[0] = CR3
        levels = len(tables)
        for number, table in enumerate(tables[:-1]):
            shift = 12 + 9 * (levels - number - 1)
            if number == levels - 2:
                self.entry(table, IMAGE >> shift, PHYSICAL | 0x81)
            else:
                self.entry(table, IMAGE >> shift, tables[number + 1] | 3)
        self.put(PHYSICAL + LAYOUT.note - LAYOUT.text, NOTE)
        self.put(PHYSICAL + LAYOUT.banner - LAYOUT.text, BANNER)

    def entry(self, table: int, index: int, value: int) -> None:
        self.put(table + 8 * (index & 0x1FF), value.to_bytes(8, "little"))

    def put(self, address: int, data: bytes) -> None:
        self.bytes[address : address + len(data)] = data

    def read(self, address: int, length: int) -> bytes:
        if address + length > len(self.bytes):
            raise ValueError("no RAM")
        return bytes(self.bytes[address : address + length])


class Told:
    """A monitor that answers so."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self._answer = answer

    def registers(self) -> str:
        return self._answer()

    def physical(self, cpu: int, virtual: int) -> int | None:
        raise AssertionError(f"CPU {cpu} is asked for {virtual:#x}")


def registers(*, rip: int = IMAGE + 0x10, cpl: int = 0, hlt: int = 0, cr3: int = CR3) -> str:
    return REGISTERS.format(rip=rip, cpl=cpl, hlt=hlt, cr3=cr3)


def test_registers_of_all_modes() -> None:
    real = "CPU#1\nEAX=00000000\nESP=00000000\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 HLT=1\n"
    real += "CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000\nEFER=0000000000000000\n"
    first, second = parse_registers(registers(hlt=1) + real)
    assert (first.rip, first.cr2, first.gs) == (
        IMAGE + 0x10,
        0xFFFF8F0000000010,
        0xFFFF8A766E45E000,
    )
    assert first.paging and first.halted and first.in_kernel_half and not first.stopped
    assert second.stopped and not second.paging and not second.in_kernel_half
    assert parse_registers("no answer: gone") == parse_registers("CPU#0\nRIP=12") == ()


@pytest.mark.parametrize("five", [False, True])
def test_a_kernel_is_found_by_page_tables_alone(five: bool) -> None:
    ram, levels = Ram(five=five), 5 if five else 4
    assert image_start(ram, CR3, levels=levels) == IMAGE
    path = walk(ram, CR3, IMAGE + 0x123456, levels=levels)
    assert path.physical == PHYSICAL + 0x123456
    assert len(path.entries) == levels - 1
    assert walk(ram, CR3, IMAGE + (4 << 20), levels=levels).physical is None


def test_what_is_no_page_table() -> None:
    ram = Ram()
    for root in (0, 0xFFFFFF000, 0x600000):
        assert image_start(ram, root) is None
        assert walk(ram, root, START_MAP).physical is None


def test_notes() -> None:
    assert build_id_of_note(NOTE) == ID.hex()
    for other in (b"", NOTE[:20], b"\1" + NOTE[1:], NOTE[:12] + b"GNX\0" + ID):
        assert build_id_of_note(other) is None


def test_samples_are_taken_until_a_kernel_is_seen(tmp_path: Path) -> None:
    """First the CPU is in a guest, whose CR3 leads nowhere here."""
    answers = [registers(cr3=0x600000, rip=0x40780), registers(rip=0x401000, cpl=3), registers()]
    witness = CpuWitness(Told(lambda: answers.pop(0)), Ram(), [LAYOUT, LAYOUT], tmp_path)
    witness.note("await pause")
    assert not answers
    samples = read_samples(tmp_path)
    assert [bool(sample.shows(ID.hex())) for sample in samples] == [False, True, True]
    (cpu,) = samples[-1].cpus
    assert (cpu.image, cpu.looks[0].says) == (IMAGE, "Linux version 7.3.4-luo-out (x) #1")
    assert len(cpu.looks) == 1, "equal layouts are looked at once"


def test_a_guest_that_never_leaves_the_cpu_ends_the_look(tmp_path: Path) -> None:
    witness = CpuWitness(Told(lambda: registers(cr3=0x600000)), Ram(), [LAYOUT], tmp_path)
    witness.note("await pause")
    assert not any(sample.shows(ID.hex()) for sample in read_samples(tmp_path))


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., Outcome]:
    """What host_saw_kernels says of the recorded trial, after `edit` had each sample."""

    def ask(
        edit: Callable[[dict[str, Any], bool], object] = lambda _sample, _incoming: None,
        setting: Callable[[dict[str, Any]], object] = lambda _setting: None,
    ) -> Outcome:
        def corrupt(folder: Path) -> None:
            lines = (folder / FILE).read_text().splitlines()
            samples = [json.loads(line) for line in lines]
            begin = next(n for n, s in enumerate(samples) if s["point"] == "side=incoming")
            for number, sample in enumerate(samples):
                edit(sample, number >= begin)
            kept = [s for s in samples if s]
            (folder / FILE).write_text("".join(json.dumps(s) + "\n" for s in kept))
            found = json.loads((folder / "trial.json").read_text())
            setting(found)
            (folder / "trial.json").write_text(json.dumps(found))

        trial: Trial = RecordedTrial(STAGE, KVM_MEMFD / "main", tmp_path)(corrupt)
        answers = judge_trial(trial, STAGE).answers
        return next(a.outcome for a in answers if a.check == "host_saw_kernels")

    return ask


def each_cpu(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any], bool], None]:
    def edit(sample: dict[str, Any], incoming: bool) -> None:
        if incoming:
            for cpu in sample["cpus"]:
                if cpu["looks"]:
                    change(cpu)

    return edit


def test_the_recorded_samples_pass(asked: Callable[..., Outcome]) -> None:
    assert asked().status == "PASS"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cpu: cpu.update(looks=[], image=None), "no data"),
        (lambda cpu: cpu["cpu"].update(cr3=cpu["cpu"]["cr3"] + 8192), "no data"),
        (lambda cpu: cpu["cpu"].update(rip=0xFFFFFFFF00000000), "no data"),
        (lambda cpu: cpu.update(image=cpu["image"] + 4096), "no data"),
        (lambda cpu: cpu["looks"][0]["banner"].update(data=BANNER.hex()), "no data"),
        (lambda cpu: cpu["looks"][0]["note"].update(data=NOTE.hex()), "000102030405 at"),
        (lambda cpu: cpu["looks"][0]["note"]["walk"].update(physical=None), "no data"),
        (lambda cpu: cpu["looks"][0]["note"]["walk"].update(entries=[]), "no data"),
    ],
)
def test_anything_else_on_the_incoming_side_falls(
    asked: Callable[..., Outcome], change: Callable[[dict[str, Any]], object], said: str
) -> None:
    found = asked(each_cpu(change))
    assert found.status != "PASS"
    assert said in found.seen


def test_no_samples_and_no_layout_are_no_data(asked: Callable[..., Outcome]) -> None:
    assert asked(lambda sample, _incoming: sample.clear()).status == "NO DATA"


def test_without_a_layout_there_is_no_data(asked: Callable[..., Outcome]) -> None:
    found = asked(setting=lambda s: s["incoming"].update(layout=None))
    assert found.status == "NO DATA"


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"t": 1, "point": "x", "cpus": [{}]}', "\x00"])
def test_damaged_samples_are_refused(tmp_path: Path, line: str) -> None:
    def corrupt(folder: Path) -> None:
        with (folder / FILE).open("a") as file:
            file.write(line + "\n")

    with pytest.raises(UsageError, match="damaged trial"):
        RecordedTrial(STAGE, KVM_MEMFD / "main", tmp_path)(corrupt)


def test_the_last_point_of_a_side_counts(asked: Callable[..., Outcome]) -> None:
    def edit(sample: dict[str, Any], _incoming: bool) -> None:
        if sample["point"] == "await end":
            for cpu in sample["cpus"]:
                cpu.update(looks=[], image=None)

    found = asked(edit)
    assert (found.status, "await end" in found.evidence) == ("NO DATA", True)


def test_a_kernel_that_stays_where_it_was_is_none_that_was_started(
    asked: Callable[..., Outcome],
) -> None:
    """Its note is rewritten, but image, frames and per-CPU data are those of before."""
    lines = (KVM_MEMFD / "main" / FILE).read_text().splitlines()
    before = next(s for s in map(json.loads, lines) if s["point"] == "await reboot")

    def edit(sample: dict[str, Any], incoming: bool) -> None:
        for number, cpu in enumerate(sample["cpus"]):
            if incoming and cpu["looks"]:
                looks = [json.loads(json.dumps(look)) for look in before["cpus"][number]["looks"]]
                for look, mine in zip(looks, cpu["looks"], strict=True):
                    for part in ("note", "banner"):
                        look[part]["data"] = mine[part]["data"]
                cpu.update(before["cpus"][number] | {"looks": looks})
            cpu["cpu"]["gs"] = 0xFFFF8A766E45E000

    found = asked(edit)
    assert found.status == "FAIL"
    assert found.seen.endswith("on both sides: no kernel was started between them")
