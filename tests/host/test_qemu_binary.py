# SPDX-License-Identifier: GPL-2.0-only
"""Which QEMU is used, and what is said of a choice that cannot be meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.arch.known import DEFAULT
from common.cli.parser import main
from common.errors import HarnessError, UsageError
from common.host.accel import Accelerator
from common.host.facts import describe_host
from common.host.qemu_binary import VARIABLE, choose, qemu_path, qemu_version
from common.machine.domain import MachineSpec, domain_xml
from tests.conftest import sentence


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that it is as it was, afterwards


def program(path: Path, *, version: str = "11.1.3", machines: str = "q35") -> Path:
    path.write_text(
        f'#!/bin/sh\ncase $1 in\n--version) echo "QEMU emulator version {version} (x)" ;;\n'
        f'-machine) echo "{machines}" ;;\nesac\n'
    )
    path.chmod(0o755)
    return path


def test_the_one_in_path_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = program(tmp_path / DEFAULT.qemu)
    choose(None)
    assert qemu_path() == found
    assert qemu_version(found) == "11.1.3"


def test_the_option_comes_before_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(program(tmp_path / "one")))
    choose(None)
    assert qemu_path() == tmp_path / "one"
    choose(str(program(tmp_path / "other")))
    assert qemu_path() == tmp_path / "other"


def test_it_is_the_machines_and_stands_in_the_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(program(tmp_path / "mine")))
    accelerator = Accelerator("tcg", "asked for")
    spec = MachineSpec(
        name="x",
        memory_mib=1,
        cpus=1,
        accelerator=accelerator,
        kernel=tmp_path,
        initrd=tmp_path,
        cmdline="",
    )
    xml = domain_xml(spec, console=tmp_path, dialogue=tmp_path, ports={}, trace_log=tmp_path)
    assert f"<emulator>{tmp_path}/mine</emulator>" in xml
    assert describe_host(accelerator, {}, spec.emulator).emulator == f"{tmp_path}/mine"


@pytest.mark.parametrize("by", ["--qemu", VARIABLE])
def test_what_is_no_qemu_is_refused_in_a_sentence(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = program(tmp_path / "aarch64", machines="virt")
    for path, said in {
        "/no/such/qemu": "No such file or directory",
        str(tmp_path): "Permission denied",
        "/bin/echo": "is not a QEMU: it says 'echo",
        str(other): "has no machine q35: is it a QEMU for x86-64?",
    }.items():
        words = ["run", "1"]
        if by == VARIABLE:
            monkeypatch.setenv(VARIABLE, path)
        else:
            words += ["--qemu", path]
        assert main(words) == 2
        text = sentence(capsys)
        assert text.startswith(f"kexec-stages: {by}: {path}") and said in text


def test_what_does_not_start_machines_does_not_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "/no/such/qemu")
    assert main(["list"]) == 0


def test_a_variable_that_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` asks without having chosen."""
    monkeypatch.setenv(VARIABLE, "/no/such/qemu")
    with pytest.raises(HarnessError, match="/no/such/qemu is not a program"):
        qemu_path()


def test_a_version_that_is_none() -> None:
    with pytest.raises(HarnessError, match="is not a QEMU"):
        qemu_version(Path("/bin/true"))
    with pytest.raises(UsageError, match="is not a QEMU"):
        choose("/bin/true")
