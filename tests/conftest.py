# SPDX-License-Identifier: GPL-2.0-only
"""What the tests share: recorded trials, and one hypervisor and kernel pair for real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.record import Trial, collect
from common.stage import load_stage

RECORDED = Path(__file__).parent / "recorded"


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
        for source in (RECORDED / name).iterdir():
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
