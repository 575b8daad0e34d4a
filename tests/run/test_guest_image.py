# SPDX-License-Identifier: GPL-2.0-only
"""A guest of the user's own: what is taken for one, and what a stage asks of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from common.cli.options import chosen_guest
from common.cli.parser import build_parser, main
from common.errors import Exit, UsageError
from common.run.guest_image import GuestImage
from common.stage.configured import configured, configured_as_recorded
from common.stage.loading import load_stage
from tests.recorded_trial import RECORDED, RecordedTrial, fallen_checks

RUN = ("run", "1", "--workload", "qemu", "--guest-image")


def bzimage(path: Path) -> Path:
    path.write_bytes(bytes(0x202) + b"HdrS" + bytes(1024))
    return path


def chosen(*words: str) -> GuestImage | None:
    return chosen_guest(build_parser().parse_args([*RUN[:4], *words]))


def test_a_boot_header_makes_a_kernel_and_anything_else_a_disk(tmp_path: Path) -> None:
    kernel, other = bzimage(tmp_path / "vmlinuz"), tmp_path / "initrd"
    other.write_bytes(b"x")
    found = chosen("--guest-image", str(kernel), "--guest-initrd", str(other))
    assert found == GuestImage(kernel=kernel, initrd=other)
    assert chosen("--guest-image", str(other)) == GuestImage(disk=other)
    assert chosen() is None


@pytest.mark.parametrize(("content", "kind"), [(b"QFI\xfb...", "qcow2"), (b"\xeb\x63", "raw")])
def test_a_disk_travels_as_a_copy(tmp_path: Path, content: bytes, kind: str) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    (element,) = GuestImage(disk=disk).devices(tmp_path)
    assert element.find(f"driver[@type='{kind}']") is not None
    source = element.find("source")
    assert isinstance(source, ET.Element)
    copy = Path(source.get("file", ""))
    assert copy != disk
    assert copy.read_bytes() == content


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--guest-image", "{}/none"], "cannot read the guest's"),
        (["--guest-image", "{}"], "Is a directory"),
        (["--guest-initrd", "{}/disk"], "go with --guest-image BZIMAGE"),
        (["--guest-image", "{}/disk", "--guest-cmdline", "quiet"], "is a disk"),
    ],
)
def test_what_cannot_be_a_guest_is_named(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    with pytest.raises(UsageError, match=said):
        chosen(*(word.format(tmp_path) for word in words))


def test_our_own_vmm_boots_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "1", "--guest-image", str(bzimage(tmp_path / "bz"))]) == Exit.USAGE
    assert (
        "--guest-image goes with run 1 and run 3, with --workload qemu" in capsys.readouterr().err
    )


STAGE = load_stage(1, "qemu")
MAIN = RECORDED / "kvm_memfd_qemu" / "main"


def test_every_control_breaks_something_that_is_asked() -> None:
    stage = configured(STAGE, own_guest=True)
    names = {check.name for check in stage.checks}
    assert {"guest_ran_on", "guest_goes_on", "not_reset"} < names
    assert not names & {"same_processes", "guest_memory", "same_boot"}
    for control in stage.controls:
        assert control.breaks <= names
        assert control.breaks or control.may_break is None
    broken = frozenset[str]().union(*(control.breaks for control in stage.controls))
    assert {"guest_ran_on", "guest_goes_on", "same_pages", "qemu_loaded"} < broken


@pytest.mark.parametrize(
    ("entries", "fallen"),
    [
        ([("outgoing", {"changed": 30}), ("incoming", {"changed": 40})], set()),
        ([("outgoing", {"changed": 0}), ("incoming", {"changed": 40})], {"guest_ran_on"}),
        ([("outgoing", {"changed": 30}), ("incoming", {"changed": 0})], {"guest_goes_on"}),
        ([("outgoing", {"changed": 30})], {"guest_goes_on"}),
        (
            [
                ("outgoing", {"changed": 30}),
                ("incoming", {"changed": 40}),
                ("incoming", {"event": {"event": "RESET", "data": {}}}),
            ],
            {"not_reset"},
        ),
    ],
)
def test_the_hosts_looks_are_judged(
    tmp_path: Path, entries: list[tuple[str, dict[str, Any]]], fallen: set[str]
) -> None:
    def edit(folder: Path) -> None:
        setting = json.loads((folder / "trial.json").read_text())
        setting["guest_image"] = {"disk.img": "0" * 64}
        (folder / "trial.json").write_text(json.dumps(setting))
        with (folder / "guest-qmp.jsonl").open("a") as file:
            for side, entry in entries:
                t = setting["ended_ns"]
                file.write(json.dumps({"t": t, "side": side, **entry}) + "\n")

    stage = configured(STAGE, own_guest=True)
    trial = RecordedTrial(stage, MAIN, tmp_path)(edit)
    assert fallen_checks(trial, configured_as_recorded(STAGE, trial.setting)) == fallen
