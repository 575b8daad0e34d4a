# SPDX-License-Identifier: GPL-2.0-only
"""`demo`: main runs before controls, whatever cannot be run here, and the worst exit status."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.cli import run as verb
from common.cli.parser import main
from common.errors import CannotRunHere, Exit
from common.stage.declaration import Stage


class _NoHypervisor:
    def __init__(self, _uri: str | None) -> None:
        pass

    def __enter__(self) -> _NoHypervisor:
        return self

    def __exit__(self, *_error: object) -> None:
        pass


class _Run:
    """A run that only notes what is asked of it."""

    def __init__(self, stage: Stage, said: list[str], exit_status: Exit) -> None:
        self.stage, self._said, self._exit = stage, said, exit_status

    def mains(self) -> None:
        self._said.append(f"main {self.stage.label}")

    def verdict(self) -> SimpleNamespace:
        return SimpleNamespace(status="PASS")

    def build_controls(self, _choice: object) -> None:
        self._said.append(f"build {self.stage.label}")

    def finish(self) -> tuple[Any, Any, Path]:
        self._said.append(f"controls {self.stage.label}")
        verdict = SimpleNamespace(
            status="PASS", why="", exit=self._exit, trials=(), controls=(), disturbed=()
        )
        return SimpleNamespace(), verdict, Path("folder")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the runs, in order. Stage 3's QEMU cannot be had; stage 2 fails."""
    found: list[str] = []

    def begin(stage: Stage, *_others: object, **_beside: object) -> _Run:
        if stage.label == "03_iommufd_qemu":
            raise CannotRunHere("no QEMU with CPR")
        return _Run(stage, found, Exit.FAIL if stage.number == 2 else Exit.PASS)

    monkeypatch.setattr(verb, "begin_run", begin)
    monkeypatch.setattr(verb, "Hypervisor", _NoHypervisor)
    for name in ("_show_stage", "_summary"):
        monkeypatch.setattr(verb, name, lambda *_: "")
    monkeypatch.setattr(verb, "attempts", lambda _verdict: ())
    return found


def test_main_runs_come_before_controls(
    said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == Exit.FAIL
    labels = ["01_kvm_memfd", "02_vfio_noiommu", "03_iommufd", "01_kvm_memfd_qemu"]
    assert said[: len(labels)] == [f"main {label}" for label in labels]
    rest = [f"{what} {label}" for label in labels for what in ("build", "controls")]
    assert said[len(labels) :] == rest
    out = capsys.readouterr().out
    assert out.count("its controls follow") == len(labels)
    assert "03_iommufd_qemu: SKIP, no QEMU with CPR" in out
