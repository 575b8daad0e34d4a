# SPDX-License-Identifier: GPL-2.0-only
"""Every path of this checkout that a comment, a docstring or a page names is there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.paths import CHECKOUT

# Of kernel/ only Python and what is ours alone: kernel/liveupdate/… is Linux's.
NAMED = re.compile(
    r"(?<![\w./$}-])(?:common|stages|tests|bench|docs)/[\w./-]+"
    r"|(?<![\w./$}-])kernel/(?:series|configs)/[\w./-]+|(?<![\w./$}-])kernel/[\w/]+\.py"
)
# Files that a run makes, and what stands for a name.
PLACEHOLDERS = re.compile(r"NN_|NAME|name|\bN\b|WORKLOAD|04_|\.\.\.|…")
SUFFIXES = frozenset({".py", ".md", ".c", ".h", ".S", ".mk", ".sh", ".toml", ".j2", ".config", ""})


def files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [
        path
        for name in listed
        if (path := CHECKOUT / name).suffix in SUFFIXES
        and path.is_file()
        and not name.startswith(
            ("tests/recorded", "tests/mutants/", "docs/report-", "docs/promises")
        )
        and path != Path(__file__)
    ]


def named(text: str) -> Iterator[str]:
    for match in NAMED.finditer(text):
        rest = text[match.end() : match.end() + 1]
        path = match[0].rstrip("./-") if rest not in ("*", "{", "<") else ""
        if path and not PLACEHOLDERS.search(path):
            yield path


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_what_it_names_is_there(path: Path) -> None:
    gone = [name for name in named(path.read_text()) if not (CHECKOUT / name).exists()]
    assert gone == []


def test_a_path_that_is_not_there_is_seen() -> None:
    assert list(named("see common/gone.py, and kernel/liveupdate/luo_file.c.")) == [
        "common/gone.py"
    ]
    assert not (CHECKOUT / "common/gone.py").exists()
