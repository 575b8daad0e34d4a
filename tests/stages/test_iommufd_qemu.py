# SPDX-License-Identifier: GPL-2.0-only
"""The judge of stage 3 with QEMU, on a recorded trial and on damaged copies of it.

Each test edits one piece of evidence and asks whether the right check falls.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from common.guest.lines import read_stood_still
from common.judge.verdict import judge_trial
from common.record.evidence import Trial
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, Edit, RecordedTrial, fallen_checks, said

STAGE = load_stage(3, "qemu")
MAIN = RECORDED / "iommufd_qemu" / "main"


@pytest.fixture
def trial(tmp_path: Path) -> Callable[..., Trial]:
    """The recorded trial, after an edit had its folder."""
    return RecordedTrial(STAGE, MAIN, tmp_path)


def fallen(trial: Trial) -> set[str]:
    return fallen_checks(trial, STAGE)


def last_beat(key: str, change: Callable[[int], int]) -> Edit:
    """A figure of the guest's last beat is another one; of the last that has it."""

    def edit(folder: Path) -> None:
        path = folder / "guest.jsonl"
        lines = path.read_text().splitlines()
        place = max(n for n, line in enumerate(lines) if f" {key}=" in line)
        lines[place] = re.sub(
            rf" {re.escape(key)}=(\d+)", lambda m: f" {key}={change(int(m[1]))}", lines[place]
        )
        path.write_text("\n".join(lines) + "\n")

    return edit


def complained(text: str) -> Edit:
    """The guest's kernel said one line more, in the end."""

    def edit(folder: Path) -> None:
        path = folder / "guest.jsonl"
        lines = path.read_text().splitlines()
        t = json.loads(lines[-1])[0] + 1
        path.write_text("\n".join([*lines, json.dumps([t, f"kernel {text}"])]) + "\n")

    return edit


def not_returned_until(ms: float) -> Edit:
    """The driver gave nothing back until so long after QEMU's RESUME."""

    def edit(folder: Path) -> None:
        _, resumed = read_stood_still(folder)
        assert resumed
        path = folder / "device-returned.bin"
        rows = list(struct.iter_unpack("<QQ", path.read_bytes()))
        kept = [row for row in rows if not resumed <= row[0] < resumed + ms * 1e6]
        assert len(kept) < len(rows)
        path.write_bytes(b"".join(struct.pack("<QQ", *row) for row in kept))

    return edit


def talked(what: str, other: str | None, *, last: bool = True) -> Edit:
    """In the peer's log one entry is of another kind, or gone."""

    def edit(folder: Path) -> None:
        path = folder / "peer.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        place = [n for n, row in enumerate(rows) if row["what"] == what][-1 if last else 0]
        if other is None:
            del rows[place]
        else:
            rows[place]["what"] = other
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return edit


def without_interrupts(folder: Path) -> None:
    """The device's trace has none of the vectors of the rings."""
    path = folder / "qemu-trace.log"
    kept = [
        line
        for line in path.read_text().splitlines(keepends=True)
        if not re.search(r"MSI-X notify vector 0x[12]|EITR\[[12]\]", line)
    ]
    path.write_text("".join(kept))


def test_the_recording_passes(trial: Callable[..., Trial]) -> None:
    verdict = judge_trial(trial(), STAGE)
    assert (verdict.status, verdict.why) == ("PASS", f"{len(STAGE.checks)} checks")


@pytest.mark.parametrize(
    ("edit", "checks"),
    [
        (last_beat("nic.frames", lambda n: n - 1), {"guest_saw_all"}),
        (last_beat("nic.lost", lambda _n: 1), {"guest_saw_all"}),
        (last_beat("nic.repeated", lambda _n: 1), {"guest_saw_all"}),
        (last_beat("nic.counted", lambda n: n + 1), {"device_counted_all"}),
        (last_beat("irq.eth0-rx-0", lambda n: n + 100_000), {"interrupt_ledger"}),
        (last_beat("irq.eth0", lambda n: n + 10), {"interrupt_ledger"}),
        (last_beat("mono_ns", lambda n: n + 3_000_000_000), {"guest_time"}),
        (complained("igb 0000:00:01.0 eth0: Reset adapter"), {"kernel_silent"}),
        (complained("clocksource: Marking clocksource tsc unstable"), set()),
        (not_returned_until(2500), {"gap_delivered"}),
        (talked("answered", "wrong"), {"tcp_to_host"}),
        (talked("asked", "opened"), {"tcp_to_host"}),
        (talked("asked", "ended"), {"tcp_to_host"}),
        (talked("opened", None, last=False), {"tcp_to_host"}),
        (talked("frame", None), {"device_counted_all"}),
        (without_interrupts, {"interrupt_ledger", "interrupts_go_on"}),
        (said("# cpr.mapped=", "# cpr.mapped=1"), {"own_ram_only"}),
        (said("# cpr.read_only=0", "# cpr.read_only=4096"), {"own_ram_only"}),
        (said("# pfn.moved=0", "# pfn.moved=1"), {"same_pages"}),
        (said("# restore.hwpt=0", "# restore.hwpt=-22"), {"device_retrieved"}),
    ],
)
def test_each_edit_falls_where_it_must(
    trial: Callable[..., Trial], edit: Edit, checks: set[str]
) -> None:
    assert fallen(trial(edit)) == checks


@pytest.mark.parametrize(("bit", "checks"), [(0x1, set()), (0x4, {"same_config"})])
def test_io_decoding_is_all_that_may_differ(
    trial: Callable[..., Trial], bit: int, checks: set[str]
) -> None:
    def edit(folder: Path) -> None:
        text = (folder / "dialogue.jsonl").read_text()
        config = re.findall(r"# device\.config=([0-9a-f]+)", text)[-1]
        command = int(config[8:10], 16) ^ bit
        said(config, f"{config[:8]}{command:02x}{config[10:]}")(folder)

    assert fallen(trial(edit)) == checks
