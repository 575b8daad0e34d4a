# SPDX-License-Identifier: GPL-2.0-only
"""The content of trees as values, and copies that share files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kernel.errors import SourceError
from kernel.source import manifest


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "one").write_text("1")
    (folder / "two").write_text("2")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("two")
    (folder / "dir-link").symlink_to("a")
    return folder


def test_walk_sees_links_but_neither_git_nor_objects(tree: Path) -> None:
    (tree / ".git").mkdir()
    (tree / ".git" / "HEAD").touch()
    (tree / ".o-0123").mkdir()
    (tree / ".o-0123" / "x.o").touch()
    assert manifest.walk(tree) == ["a/one", "dir-link", "link", "run", "two"]


def test_content_mode_and_links_count_times_do_not(tree: Path) -> None:
    names = manifest.walk(tree)
    content, _ = manifest.scan(tree, names, {})
    assert {content[name][0] for name in ("run", "two", "link")} == {"x", "f", "l"}
    os.utime(tree / "two", (1, 1))
    assert manifest.scan(tree, names, {})[0] == content
    whole = {manifest.digest(content)}
    (tree / "two").write_text("3")
    whole.add(manifest.digest(manifest.scan(tree, names, {})[0]))
    (tree / "run").chmod(0o644)
    whole.add(manifest.digest(manifest.scan(tree, names, {})[0]))
    (tree / "link").unlink()
    (tree / "link").symlink_to("run")
    whole.add(manifest.digest(manifest.scan(tree, names, {})[0]))
    assert len(whole) == 4


def test_a_known_file_is_not_read_again_unless_it_changed(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "RACY_NS", 0)
    time.sleep(0.02)
    names = manifest.walk(tree)
    content, known = manifest.scan(tree, names, {})
    assert set(known) == set(names)
    read: list[str] = []
    digest = manifest._digest

    def spy(path: Path, info: os.stat_result) -> str:
        read.append(path.name)
        return digest(path, info)

    monkeypatch.setattr(manifest, "_digest", spy)
    before = (tree / "two").stat()
    (tree / "two").write_text("9")
    # of the same size, and as old as before: only ctime tells
    os.utime(tree / "two", ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _ = manifest.scan(tree, names, known)
    assert read == ["two"] and manifest.difference(content, again) == {"two"}


def test_a_file_written_just_now_is_not_trusted(tree: Path) -> None:
    assert manifest.scan(tree, manifest.walk(tree), {})[1] == {}


def test_what_is_gone_is_left_out_what_is_unreadable_is_named(tree: Path) -> None:
    content, _ = manifest.scan(tree, ["two", "gone", "two/below"], {})
    assert set(content) == {"two"}
    (tree / "loop").symlink_to("loop")
    assert "loop" in manifest.scan(tree, ["loop"], {})[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tree: Path) -> None:
    (tree / "two").chmod(0)
    with pytest.raises(SourceError, match=r"cannot read .*two: Permission denied"):
        manifest.scan(tree, ["two"], {})


def test_a_copy_links_what_the_older_copy_has(tree: Path, tmp_path: Path) -> None:
    content, _ = manifest.scan(tree, manifest.walk(tree), {})
    first = tmp_path / "first"
    manifest.copy_tree(content, tree, first, older=None, older_manifest={})
    (tree / "two").write_text("changed")
    newer, _ = manifest.scan(tree, manifest.walk(tree), {})
    second = tmp_path / "second"
    manifest.copy_tree(newer, tree, second, older=first, older_manifest=content)
    assert (second / "two").read_text() == "changed" and (first / "two").read_text() == "2"
    assert (second / "a/one").samefile(first / "a/one")
    assert not (first / "a/one").samefile(tree / "a/one")
    assert os.access(second / "run", os.X_OK) and (second / "link").readlink() == Path("two")
    assert manifest.scan(second, manifest.walk(second), {})[0] == newer


def test_a_tree_that_changes_meanwhile_is_refused(tree: Path, tmp_path: Path) -> None:
    content, _ = manifest.scan(tree, manifest.walk(tree), {})
    (tree / "two").write_text("changed")
    with pytest.raises(SourceError, match="was changed while the tree was being read"):
        manifest.copy_tree(content, tree, tmp_path / "copy", older=None, older_manifest={})


def test_a_renewed_file_is_younger_and_alone(tree: Path, tmp_path: Path) -> None:
    content, _ = manifest.scan(tree, manifest.walk(tree), {})
    linked = tmp_path / "linked"
    manifest.link_tree(content, tree, linked)
    os.utime(tree / "run", (1, 1))
    manifest.renew(linked / "run")
    assert (tree / "run").stat().st_mtime == 1 and (linked / "run").stat().st_mtime > 1
    assert os.access(linked / "run", os.X_OK)
    manifest.renew(linked / "absent")


def test_a_stored_manifest_comes_back(tmp_path: Path) -> None:
    manifest.store(tmp_path / "m", {"a": "f1"})
    assert manifest.load(tmp_path / "m") == {"a": "f1"}
    assert manifest.load(tmp_path / "absent") == {}
