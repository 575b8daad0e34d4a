# SPDX-License-Identifier: GPL-2.0-only
"""Debian's package by way of a stand-in for apt, and trees of the user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kernel.errors import DiskFull, FetchError, PatchError, SourceError
from kernel.events import Event, Noted, Phase, Started
from kernel.make.diagnose import missing_files
from kernel.source import source
from kernel.source.archive import archive_source
from kernel.source.source import (
    SourceKind,
    debian_source,
    kernel_version,
    sources_root,
    tree_source,
)
from kernel.source.worktree import apply_patch, prepare
from tests.kernel.toy import PATCH, git, make_git_tree, make_tree, snapshot

needs_dpkg = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb: not a Debian")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))


def package(folder: Path, name: str, version: str) -> Path:
    """A Debian package with the toy tree as its source tarball."""
    top = folder / "tree" / name
    make_tree(top)
    root = folder / "deb"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: toy\n"
        "Description: toy\n"
    )
    (root / "usr" / "src").mkdir(parents=True)
    tarball = root / "usr" / "src" / f"{name}.tar.xz"
    subprocess.run(["tar", "-cJf", tarball, "-C", top.parent, name], check=True)
    deb = folder / f"{name}_{version}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(deb)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return deb


def apt(folder: Path, script: str) -> Path:
    path = folder / "private-apt"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@needs_dpkg
def test_the_package_is_fetched_once(tmp_path: Path) -> None:
    deb = package(tmp_path, "linux-source-7.3", "7.3.4-1")
    tool = apt(tmp_path, f'echo "$@" >> {tmp_path}/calls; cp {deb} .')
    events: list[Event] = []
    first = debian_source(private_apt=tool, progress=events.append)
    again = debian_source(private_apt=tool, progress=events.append)
    assert first == again and first.kind is SourceKind.DEBIAN
    assert first.version == "7.3.4" and first.label == "Debian linux-source-7.3 7.3.4-1"
    assert (first.path / "mm" / "one.c").exists()
    calls = (tmp_path / "calls").read_text()
    assert calls == "trixie-backports download linux-source-7.3\n"
    phases = [event.phase for event in events if isinstance(event, Started)]
    assert phases == [Phase.FETCH, Phase.UNPACK]
    assert not list(sources_root().glob(".fetch-*"))


@needs_dpkg
def test_a_refresh_takes_the_newer_package_and_keeps_the_older(tmp_path: Path) -> None:
    old = package(tmp_path / "1", "linux-source-7.3", "7.3.4-1")
    new = package(tmp_path / "2", "linux-source-7.3", "7.3.5-1")
    first = debian_source(private_apt=apt(tmp_path, f"cp {old} ."))
    second = debian_source(private_apt=apt(tmp_path, f"cp {new} ."), refresh=True)
    assert second.identity != first.identity and first.path.exists()
    assert debian_source(private_apt=apt(tmp_path, "exit 1")) == second


@needs_dpkg
def test_another_suites_package_is_another_source(tmp_path: Path) -> None:
    ours = package(tmp_path / "1", "linux-source-7.3", "7.3.4-1~bpo13+1")
    theirs = package(tmp_path / "2", "linux-source-7.3", "7.3.5-1")
    first = debian_source(private_apt=apt(tmp_path, f"cp {ours} ."))
    tool = apt(tmp_path, f'echo "$@" >> {tmp_path}/calls; cp {theirs} .')
    second = debian_source(suite="sid", private_apt=tool)
    assert second.identity != first.identity
    assert ("suite", "sid") in second.facts and dict(first.facts).get("suite") is None
    none = apt(tmp_path, "exit 1")
    assert debian_source(private_apt=none) == first
    assert debian_source(suite="sid", private_apt=none) == second
    assert (tmp_path / "calls").read_text() == "sid download linux-source-7.3\n"


def test_a_suite_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not the name of a suite"):
        debian_source(suite="", private_apt=tmp_path)


@needs_dpkg
def test_what_apt_says_is_told(tmp_path: Path) -> None:
    tool = apt(tmp_path, 'echo "E: Unable to locate package linux-source-9.9" >&2; exit 100')
    with pytest.raises(FetchError, match=r"linux-source-9\.9 .*E: Unable to locate package"):
        debian_source("linux-source-9.9", private_apt=tool)
    assert not list(sources_root().glob(".fetch-*"))


def test_a_disk_that_fills_up_while_fetching(tmp_path: Path) -> None:
    tool = apt(
        tmp_path, 'echo "E: write error - write (28: No space left on device)" >&2; exit 100'
    )
    with pytest.raises(DiskFull, match="the disk is full"):
        debian_source(private_apt=tool)


@needs_dpkg
def test_another_package_than_asked_for_is_refused(tmp_path: Path) -> None:
    deb = package(tmp_path, "linux-source-7.2", "7.2.1-1")
    with pytest.raises(FetchError, match=r"is not linux-source-7\.3"):
        debian_source(private_apt=apt(tmp_path, f"cp {deb} ."))


def test_a_package_that_is_no_kernel_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not the name of a kernel source package"):
        debian_source("linux-source-7.3; rm -rf /", private_apt=tmp_path)


def test_a_small_disk_is_told_before_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    with pytest.raises(DiskFull, match=r"needs about 2\.4 GB .* has 1\.0 GB free"):
        debian_source(private_apt=apt(tmp_path, "exit 1"))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\nNAME = X\n", "7.3.4"),
        ("VERSION = 7\nPATCHLEVEL = 4\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\n", "7.4.0-rc2"),
    ],
)
def test_versions(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "Makefile").write_text(text)
    assert kernel_version(tmp_path) == version


def test_an_unchanged_tree_has_the_same_identity_wherever_it_is(tmp_path: Path) -> None:
    one, two = make_tree(tmp_path / "one"), make_git_tree(tmp_path / "two")
    (one / ".gitignore").write_text((two / ".gitignore").read_text())
    assert tree_source(one).identity == tree_source(two).identity


def test_every_kind_of_change_changes_the_identity(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "tree")
    seen = {tree_source(tree).identity}
    (tree / "mm" / "one.c").write_text("int one;\n")
    seen.add(tree_source(tree).identity)
    (tree / "mm" / "new.c").write_text("int fresh;\n")
    seen.add(tree_source(tree).identity)
    (tree / "mm" / "two.c").unlink()
    seen.add(tree_source(tree).identity)
    assert len(seen) == 4
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "the same content, committed")
    assert tree_source(tree).identity in seen


def test_ignored_files_are_no_part_of_the_tree(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "tree")
    clean = tree_source(tree).identity
    (tree / ".config").touch()
    (tree / "mm" / "one.o").touch()
    assert tree_source(tree).identity == clean


def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "tree")
    clean = tree_source(tree).identity
    name = os.fsencode(tree / "mm") + b"/caf\xe9"
    with open(name, "wb"):  # noqa: PTH123 - a name that Path would take only as text
        pass
    found = tree_source(tree)
    assert found.identity != clean
    assert len(prepare(found, (), lambda _: None).manifest()) == 12


def test_a_dirty_tree_says_so(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "tree")
    assert "changed" not in tree_source(tree).label
    (tree / "mm" / "one.c").write_text("int one;\n")
    facts = dict(tree_source(tree).facts)
    assert facts["dirty"] == "1" and len(facts["commit"]) == 40
    assert "1 files changed" in tree_source(tree).label


def test_an_in_tree_build_without_git(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    clean = tree_source(tree).identity
    (tree / ".config").touch()
    (tree / "mm" / "one.o").touch()
    with pytest.raises(SourceError, match="make mrproper"):
        # a .gitignore that ignores even the Makefile, as Debian's source package has it
        (tree / ".gitignore").write_text("/*\n")
        tree_source(tree)
    (tree / ".gitignore").write_text(".*\n*.o\n")
    assert tree_source(tree).identity == clean


def test_a_read_only_tree_is_good_enough_and_stays_as_it_is(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "tree")
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    before = snapshot(tree)
    try:
        found = tree_source(tree)
        prepare(found, (), lambda _: None)
        assert snapshot(tree) == before
    finally:
        for path in (tree, *tree.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)


def test_another_users_tree(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can make one")
    tree = make_git_tree(tmp_path / "tree")
    clean = tree_source(tree)
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert tree_source(tree) == clean


@pytest.mark.parametrize("missing", ["Makefile", "Kbuild", "arch/x86/Makefile"])
def test_what_makes_a_kernel_tree(tmp_path: Path, missing: str) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / missing).unlink()
    with pytest.raises(SourceError, match="is not a kernel tree") as caught:
        tree_source(tree)
    assert Path(missing).name in str(caught.value)


def test_without_git_a_clean_tree_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(tmp_path / "tree")
    clean = tree_source(tree)
    monkeypatch.setattr(source, "_git", lambda *_, **__: None)
    assert tree_source(tree) == clean
    (tree / ".config").touch()
    with pytest.raises(SourceError, match="make mrproper"):
        tree_source(tree)


def test_a_patched_copy_leaves_the_other_as_it_was(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    patch = tmp_path / "one.patch"
    patch.write_text(PATCH)
    plain = prepare(tree_source(tree), (), lambda _: None)
    patched = prepare(tree_source(tree), (patch,), lambda _: None)
    assert "return 2" in (patched.path / "mm/one.c").read_text()
    assert "return 1" in (plain.path / "mm/one.c").read_text()
    assert (patched.path / "mm/two.c").samefile(plain.path / "mm/two.c")
    different = {name for name, _ in patched.manifest().items() ^ plain.manifest().items()}
    assert different == {"mm/one.c"}
    assert not list(patched.path.rglob("*.orig"))


NEW_AND_GONE = """\
--- /dev/null
+++ b/mm/new.c
@@ -0,0 +1 @@
+int fresh;
--- a/mm/three.c
+++ /dev/null
@@ -1 +0,0 @@
-int three(void) { return 3; }
"""


def test_a_patch_that_makes_and_removes_files(tmp_path: Path) -> None:
    patch = tmp_path / "files.patch"
    patch.write_text(NEW_AND_GONE)
    worktree = prepare(tree_source(make_tree(tmp_path / "tree")), (patch,), lambda _: None)
    content = worktree.manifest()
    assert "mm/new.c" in content and "mm/three.c" not in content
    assert not (worktree.path / "mm/three.c").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PATCH.replace("return 1", "return 9"), "hunk 1 of mm/one.c"),
        (PATCH.replace("mm/one.c", "mm/gone.c"), "names a file that is not there"),
        ("no patch at all\n", "it is not a patch"),
        ("", "it is not a patch"),
        (PATCH.replace("return 1", "return 0").replace("return 2", "return 1"), "has it already"),
    ],
)
def test_refusals(tmp_path: Path, text: str, message: str) -> None:
    tree = make_tree(tmp_path / "tree")
    patch = tmp_path / "0003-bad.patch"
    patch.write_text(text)
    with pytest.raises(PatchError, match=r"^0003-bad.patch does not apply: .*" + message):
        apply_patch(tree, patch)


def test_no_fuzz(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    patch = tmp_path / "fuzzy.patch"
    patch.write_text(PATCH.replace(" int one(void)", " int uno(void)"))
    with pytest.raises(PatchError, match="hunk 1"):
        apply_patch(tree, patch)


def test_a_series_that_fails_leaves_nothing(tmp_path: Path) -> None:
    good, bad = tmp_path / "1.patch", tmp_path / "2.patch"
    good.write_text(PATCH)
    bad.write_text(PATCH)
    tree = make_tree(tmp_path / "tree")
    with pytest.raises(PatchError, match=r"^2\.patch"):
        prepare(tree_source(tree), (good, bad), lambda _: None)
    assert len(list(sources_root().iterdir())) == 1
    assert "return 1" in (tree / "mm/one.c").read_text()


def noted(tree: Path) -> tuple[source.Source, str]:
    events: list[Event] = []
    found = tree_source(tree, progress=events.append)
    return found, " ".join(event.text for event in events if isinstance(event, Noted))


def test_a_build_folder_leads_to_its_source(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "linux")
    build = tmp_path / "build"
    build.mkdir()
    (build / "Makefile").write_text("include ../linux/Makefile\n")
    (build / "source").symlink_to(tree)
    found, said = noted(build)
    assert found.path == tree.resolve()
    assert "is a build folder; the kernels are built of" in said


def test_new_sources_that_are_ignored_are_named(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "linux")
    (tree / ".git" / "info" / "exclude").write_text("/*\n")
    (tree / "drivers").mkdir(exist_ok=True)
    (tree / "drivers" / "mine.c").write_text("int mine;\n")
    (tree / "notes.txt").write_text("no source\n")
    _found, said = noted(tree)
    assert "left out of what is built" in said and "drivers/mine.c" in said
    assert "notes.txt" not in said
    assert noted(make_git_tree(tmp_path / "other"))[1] == ""


def test_a_disk_image_in_the_tree_is_not_copied(tmp_path: Path) -> None:
    tree = make_git_tree(tmp_path / "linux")
    os.truncate(os.open(tree / "disk.img", os.O_CREAT | os.O_RDWR), 6 << 30)
    _found, said = noted(tree)
    assert "disk.img" in said and "larger than 64 MiB" in said
    assert "disk.img" not in source.tree_manifest(tree)[0]


def test_files_that_a_build_calls_missing() -> None:
    said = [
        "make[3]: *** No rule to make target 'drivers/mine.o', needed by 'drivers/'.  Stop.",
        "../drivers/a.c:1:10: fatal error: drivers/b.h: No such file or directory",
    ]
    assert missing_files(said) == [
        "drivers/mine.o",
        "drivers/mine.c",
        "drivers/mine.S",
        "drivers/b.h",
    ]


def tarball(folder: Path, name: str = "linux-7.3.4.tar.xz") -> Path:
    """The toy tree as kernel.org packs it."""
    make_tree(folder / "linux-7.3.4")
    path = folder / name
    subprocess.run(["tar", "-caf", path, "-C", folder, "linux-7.3.4"], check=True)
    return path


def test_a_tarball_is_unpacked_once_and_is_as_its_tree(tmp_path: Path) -> None:
    path = tarball(tmp_path)
    events: list[Event] = []
    first = archive_source(path, progress=events.append)
    assert archive_source(path, progress=events.append) == first
    assert [e.phase for e in events if isinstance(e, Started)] == [Phase.UNPACK]
    assert first.kind is SourceKind.ARCHIVE and first.version == "7.3.4"
    tree = tree_source(tmp_path / "linux-7.3.4")
    assert first.identity == tree.identity
    digest = dict(first.facts)["archive_sha256"]
    assert digest[:12] in first.label
    assert any(digest in event.text for event in events if isinstance(event, Noted))
    (tmp_path / "a.patch").write_text(PATCH)
    patched = prepare(first, [tmp_path / "a.patch"], lambda _event: None)
    assert patched.path != first.path


def test_a_tarball_has_to_be_as_the_list_beside_it_says(tmp_path: Path) -> None:
    path = tarball(tmp_path)
    digest = dict(archive_source(path).facts)["archive_sha256"]
    lists = tmp_path / "sha256sums.asc"
    lists.write_text(f"-----BEGIN PGP-----\n{'0' * 64}  other.tar.xz\n{digest}  {path.name}\n")
    assert archive_source(path).version == "7.3.4"
    lists.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(SourceError, match=f"has SHA-256 {digest}; {lists} says 0000"):
        archive_source(path)
    lists.write_text("nothing\n")
    with pytest.raises(SourceError, match=r"does not name linux-7\.3\.4"):
        archive_source(path)


def test_what_is_no_tarball_of_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        archive_source(tmp_path / "linux.tar.xz")
    (tmp_path / "linux.tar.xz").write_text("no archive")
    with pytest.raises(SourceError, match="could not be unpacked"):
        archive_source(tmp_path / "linux.tar.xz")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "README").touch()
    subprocess.run(["tar", "-caf", tmp_path / "o.tgz", "-C", tmp_path, "other"], check=True)
    with pytest.raises(SourceError, match="is not a kernel tree"):
        archive_source(tmp_path / "o.tgz")
    assert not list(sources_root().glob("*"))
