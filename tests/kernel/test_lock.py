# SPDX-License-Identifier: GPL-2.0-only
"""Locks that end with their last holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.paths import CHECKOUT
from kernel.system.lock import holder, try_lock, wait_lock


def test_shared_and_exclusive(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a"
    first = try_lock(path, exclusive=False)
    second = try_lock(path, exclusive=False)
    assert first and second and try_lock(path, exclusive=True) is None
    first.close()
    second.close()
    with try_lock(path, exclusive=True) or pytest.fail("free, but not to be had"):
        assert holder(path) == os.getpid()
        assert try_lock(path, exclusive=False) is None
    assert try_lock(path, exclusive=True) is not None


def test_a_value_that_is_dropped_releases(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "a", exclusive=True)
    del lock
    assert try_lock(tmp_path / "a", exclusive=True) is not None


def test_a_child_keeps_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    path = tmp_path / "a"
    script = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from kernel.system.lock import try_lock\n"
        "lock = try_lock(Path(sys.argv[1]), exclusive=True)\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL,\n"
        "    pass_fds=[lock.fileno()])\n"
        "print(child.pid, flush=True); os._exit(0)\n"
    )
    checkout = CHECKOUT
    started = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert try_lock(path, exclusive=False) is None
    os.kill(int(started.stdout), 15)
    wait_lock(path, exclusive=True, waiting=lambda _: None, timeout=5).close()


def test_a_discarded_lock_leaves_no_file_and_no_ghost(tmp_path: Path) -> None:
    path = tmp_path / "a"
    lock = try_lock(path, exclusive=True)
    assert lock is not None
    lock.discard()
    assert not path.exists()
    new = try_lock(path, exclusive=True)
    assert new is not None and try_lock(path, exclusive=True) is None


def test_waiting_is_told_once_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "a"
    told: list[int | None] = []
    with try_lock(path, exclusive=True) or pytest.fail("free"), pytest.raises(TimeoutError):
        wait_lock(path, exclusive=False, waiting=told.append, timeout=1)
    assert told == [os.getpid()]
