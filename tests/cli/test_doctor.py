# SPDX-License-Identifier: GPL-2.0-only
"""doctor's rows and table, from what make-ready printed on machines of several kinds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from common.cli import doctor as verb
from common.cli.doctor import summary, table
from common.errors import HarnessError
from common.host import requirements
from common.host.requirements import (
    Requirement,
    State,
    disk,
    host_programs,
    kernel_cache,
    kernel_source,
    memory,
    processor,
    python_packages,
)

LOOK = """\
python3\tbase\tok\t3.11.2\t/usr/bin/python3.11\tstable\t3.11\tPython\twhy\t-
qemu\tmachine\ttoo old\t7.2.19\t/usr/bin/qemu\tsrc:qemu\t10.0\tQEMU\twhy\tsudo apt-get install qemu
flex\tmachine\tmissing\t-\t-\tstable\t-\tflex\twhy\tinstall flex
gcc\tarm64\tmissing\t-\t-\tstable\t-\tgcc for arm64\twhy\tinstall it
"""
GROUPS = ("base", "machine")


def test_rows_of_the_look() -> None:
    assert host_programs(LOOK, GROUPS) == [
        Requirement("Python 3.11 or later", "3.11.2", State.OK),
        Requirement("QEMU 10.0 or later", "7.2.19", State.TOO_OLD, "sudo apt-get install qemu"),
        Requirement("flex", "", State.MISSING, "install flex"),
    ]


def test_what_an_architecture_needs_is_asked_for_with_it_only() -> None:
    found = {row.need: row for row in host_programs(LOOK, (*GROUPS, "arm64"))}
    assert found["gcc for arm64"].state is State.MISSING
    assert "gcc for arm64" not in {row.need for row in host_programs(LOOK, GROUPS)}


def test_an_unknown_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="well enough"):
        host_programs(LOOK.replace("too old", "well enough"), GROUPS)


def test_the_table_shows_versions_and_commands_as_they_are() -> None:
    long = Requirement("accelerator", "tcg: " + "word " * 30, State.OK)
    command = "sudo apt-get install " + "package " * 15 + "last"
    rows = table(
        [
            Requirement("make", "4.0", State.OK),
            long,
            Requirement("x", "", State.MISSING, command),
        ]
    ).splitlines()
    assert rows[0].split() == ["need", "found", "state", "mend"]
    assert rows[2].split() == ["make", "4.0", "ok"]
    assert len(rows) > 5  # what was found is folded
    assert any(row.endswith(f"missing  {command}") for row in rows)


def test_the_summary_names_what_stops_demo_once() -> None:
    found = [*host_programs(LOOK, GROUPS), Requirement("flex", "", State.MISSING), kernel_cache([])]
    assert summary(found) == "Missing for ./kexec-stages demo: QEMU 10.0 or later, flex."
    assert "All that" in summary([kernel_cache([])])


@pytest.mark.parametrize(("state", "status"), [(state, 3) for state in State if state.stops_demo])
def test_gaps_are_exit_status_3(monkeypatch: pytest.MonkeyPatch, state: State, status: int) -> None:
    monkeypatch.setattr(verb, "requirements", lambda _arch: [Requirement("x", "", state, "mend x")])
    assert verb.doctor(argparse.Namespace(arch="x86_64")) == status


def test_what_demo_makes_itself_is_exit_status_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = [Requirement("x", "1", State.OK), Requirement("y", "", State.NOT_YET, "demo")]
    monkeypatch.setattr(verb, "requirements", lambda _arch: states)
    assert verb.doctor(argparse.Namespace(arch="x86_64")) == 0
    assert "not yet" in capsys.readouterr().out


def test_processor() -> None:
    assert processor("x86_64").state is State.OK
    assert processor("aarch64").state is State.MISSING


def test_memory() -> None:
    assert memory(requirements.MEMORY_MIB).state is State.OK
    assert memory(requirements.MEMORY_MIB - 1).state is State.TOO_LITTLE


def test_disk_wants_less_once_there_are_kernels() -> None:
    root = Path("/cache")
    assert disk(4_000_000_000, kernels=0, root=root).state is State.OK
    assert disk(3_900_000_000, kernels=0, root=root).state is State.TOO_LITTLE
    assert disk(3_900_000_000, kernels=1, root=root).state is State.OK
    assert "/cache" in disk(0, kernels=1, root=root).need


def test_python_packages_counts_what_is_here() -> None:
    text = """
[project]
dependencies = ["pytest==0.0.1", "no-such-package==1"]
[project.optional-dependencies]
machine = ["tabulate==0.10.0"]
"""
    found = python_packages(text)
    assert (found.found, found.state) == ("1 of 3", State.NOT_YET)


def test_no_qemu_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_qemu(_arch: object) -> None:
        raise HarnessError("qemu-system-x86_64 is not installed")

    monkeypatch.setattr("common.host.accel.probe", no_qemu)
    monkeypatch.setattr(requirements, "_look", lambda: LOOK)
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "not" / "yet"))
    needs = {entry.need: entry for entry in requirements.requirements()}
    assert needs["accelerator (KVM, else TCG)"].state is State.NOT_YET
    assert needs["kernels in the cache"].state is State.NOT_YET
    assert not (tmp_path / "not").exists()


def test_the_look_of_this_machine() -> None:
    """The real prober, on whatever machine this is: every row is understood."""
    rows = host_programs(requirements._look(), GROUPS)
    assert {"static libc", "QEMU with the igb device model"} <= {row.need for row in rows}
    assert all(bool(row.mend) == (row.state is not State.OK) for row in rows)


def test_the_kernels_source_is_here_or_can_be_had_or_has_to_be_given(tmp_path: Path) -> None:
    assert kernel_source(None, fetched=True, debian=False).state is State.OK
    assert kernel_source(None, fetched=False, debian=True).state is State.NOT_YET
    lacking = kernel_source(None, fetched=False, debian=False)
    assert lacking.state.stops_demo and "--source linux-7.3.4.tar.xz" in lacking.mend
    assert kernel_source(str(tmp_path), fetched=False, debian=False).state is State.OK
    assert kernel_source("/nowhere", fetched=True, debian=True).state is State.MISSING
