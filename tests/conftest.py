# SPDX-License-Identifier: GPL-2.0-only
"""What the tests share: recorded trials, and one hypervisor and kernel pair for real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.record.evidence import Trial, collect
from common.stage.loading import load_stage
from tests.recorded_trial import IOMMUFD, KVM_MEMFD, VFIO_NOIOMMU
from tests.stored import store_run


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Trial]:
    """A recorded trial, after the raw lines of one serial line went through `edit`."""

    def load(
        name: str,
        *,
        line: str = "console",
        edit: Callable[[list[tuple[int, str]]], list[tuple[int, str]]] | None = None,
        setting: dict[str, object] | None = None,
    ) -> Trial:
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for source in (KVM_MEMFD / name).iterdir():
            (folder / source.name).write_bytes(source.read_bytes())
        if edit:
            path = folder / f"{line}.jsonl"
            entries = [tuple(json.loads(text)) for text in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(entry) + "\n" for entry in edit(entries)))
        if setting:
            path = folder / "trial.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | setting))
        return collect(folder, witness=load_stage(1).witness)

    return load


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, empty."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("KEXEC_STAGES_RUNS", str(folder))
    return folder


@pytest.fixture
def run_folder(runs: Path) -> Path:
    """A sealed run of stage 1: the recorded main trial, the only run there is."""
    return store_run(runs / "recorded", (KVM_MEMFD / "main", "main"))


@pytest.fixture
def run_with_controls(runs: Path) -> Path:
    """A sealed run of stage 1: main trial and the recorded controls."""
    return store_run(runs / "with-controls", *((path, path.name) for path in KVM_MEMFD.glob("*/")))


@pytest.fixture
def run_2_folder(runs: Path) -> Path:
    """A sealed run of stage 2: the recorded main trial."""
    return store_run(runs / "recorded-2", (VFIO_NOIOMMU / "main", "main"), stage=2)


@pytest.fixture
def run_3_folder(runs: Path) -> Path:
    """A sealed run of stage 3: the recorded main trial."""
    return store_run(runs / "recorded-3", (IOMMUFD / "main", "main"), stage=3)


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says, which must be one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


class FakeHypervisor:
    """What the verb asks of one, without libvirt; it is its own cleanup."""

    def __init__(self, _uri: str | None) -> None:
        self.cleanup = self

    def __enter__(self) -> FakeHypervisor:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def remove_folder(self, _folder: Path) -> None:
        pass
