# SPDX-License-Identifier: GPL-2.0-only
"""Scripts that unpack something of Debian's into the cache: from there the next time, or not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common.paths import CHECKOUT

# What of the suite's folder is there when it is whole, and what is printed.
SCRIPTS = {
    "other-qemu": ("qemu-system-x86_64", "qemu-system-x86_64"),
    "debian-kernel": ("vmlinuz", ""),
}
TOOLS = ("dirname", "readlink", "mkdir", "flock", "sh")


def run(script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(CHECKOUT / "common" / "host" / script), *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def tools(folder: Path, *names: str) -> str:
    """A PATH with these programs only."""
    path = folder / "bin"
    path.mkdir()
    for name in names:
        (path / name).symlink_to(shutil.which(name) or "")
    return str(path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_in_the_cache_is_used_without_apt(tmp_path: Path, script: str) -> None:
    whole, printed = SCRIPTS[script]
    suite = tmp_path / script / "trixie"
    suite.mkdir(parents=True)
    (suite / whole).write_text("#!/bin/sh\n")
    (suite / whole).chmod(0o755)
    done = run(script, "trixie", KEXEC_STAGES_CACHE=str(tmp_path), PATH=tools(tmp_path, *TOOLS))
    assert (done.returncode, done.stdout) == (0, f"{suite / printed}\n"), done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_where_there_is_no_apt_nothing_is_left(tmp_path: Path, script: str) -> None:
    path = tools(tmp_path, *TOOLS, "mktemp", "rm", "uname")
    done = run(script, "trixie", KEXEC_STAGES_CACHE=str(tmp_path), PATH=path)
    assert done.returncode == 3 and "there is no apt-get here" in done.stderr
    assert done.stdout == ""
    assert [path.name for path in (tmp_path / script).iterdir()] == ["lock"]


@pytest.mark.parametrize("words", [(), ("trixie", "x"), ("",), ("../x",)])
@pytest.mark.parametrize("script", SCRIPTS)
def test_usage(script: str, words: tuple[str, ...]) -> None:
    done = run(script, *words)
    assert done.returncode == 2 and done.stderr.startswith(f"{script}: ")
