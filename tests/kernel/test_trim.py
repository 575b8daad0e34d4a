# SPDX-License-Identifier: GPL-2.0-only
"""Which build folders are left when there are too many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel import cache
from kernel.source.source import sources_root


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path))


def folder(tree: str, key: str, config: str, age: int) -> Path:
    made = sources_root() / tree / "tree" / f"{cache.OBJECTS}{key}"
    made.mkdir(parents=True)
    (sources_root() / tree / "source.json").write_text("{}")
    (made / ".config").write_text(config)
    for path in (made, made.parent.parent):
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return made


def test_each_configuration_keeps_its_newest_folder() -> None:
    """The controls of one stage do not cost another one its seed."""
    old = [folder("stock", f"{n:x}" * 8, "CONFIG_A=y\n", 1000 + n) for n in range(1, 3)]
    many = [folder(f"series{n}", f"{n}" * 16, "CONFIG_B=y\n", n) for n in range(10, 22)]
    cache.trim()
    assert [path.exists() for path in old] == [True, False]
    assert sum(path.exists() for path in many) == cache.KEPT_OBJECTS
    assert many[0].exists()
    assert not many[-1].exists()
