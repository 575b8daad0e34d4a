# SPDX-License-Identifier: GPL-2.0-only
"""Series as people have them: versions, quilt, mailboxes; and what cannot be applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UsageError
from common.stage.series_folder import given_series, series_patches

DIFF = "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n"


def files(folder: Path, *names: str, content: str = DIFF) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(content)
    return folder


def test_a_second_version_with_its_cover_letter(tmp_path: Path) -> None:
    folder = files(
        tmp_path / "s", "v2-0000-cover-letter.patch", "v2-0002-b.patch", "v2-0001-a.patch"
    )
    assert [p.name for p in series_patches(folder)] == ["v2-0001-a.patch", "v2-0002-b.patch"]
    files(folder, "0001-a.patch")
    with pytest.raises(UsageError, match=r"more than one version of a series \(v1, v2\)"):
        given_series(str(folder))


def test_quilt_says_the_order(tmp_path: Path) -> None:
    folder = files(tmp_path / "s", "b.patch", "a.patch", "left-out.patch")
    (folder / "series").write_text("# mine\nb.patch\n\na.patch -p1 # second\n")
    assert [p.name for p in series_patches(folder)] == ["b.patch", "a.patch"]
    (folder / "series").write_text("c.patch\n")
    with pytest.raises(
        UsageError, match=r"series names c\.patch, which is not a file in that folder"
    ):
        given_series(str(folder))
    (folder / "series").write_text("../../etc/passwd\n")
    with pytest.raises(UsageError, match="which is not a file in that folder"):
        given_series(str(folder))
    (folder / "series").write_text("a.patch -p0\n")
    with pytest.raises(UsageError, match="is to be applied with -p0"):
        given_series(str(folder))


def mail(subject: str, body: str) -> str:
    return (
        "From git@z Thu Jan  1 00:00:00 1970\nFrom: A <a@example.org>\n"
        f"Subject: {subject}\nContent-Type: text/plain; charset=utf-8\n\n{body}\n"
    )


@pytest.mark.parametrize("named", [True, False])
def test_a_mailbox_is_taken_apart(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))
    box = files(tmp_path / "s") / "v3_20260101_a_series.mbx"
    box.write_text(
        mail("[PATCH v3 0/2] cover", "no diff here")
        + mail("[PATCH v3 2/2] mm: second\n thing", f"Why.\n---\n{DIFF}")
        + mail("[PATCH v3 1/2] mm: first", f"Why.\n---\n{DIFF}")
    )
    folder = given_series(str(box if named else box.parent))
    names = [p.name for p in series_patches(folder)]
    assert names == ["0001-mm-first.patch", "0002-mm-second-thing.patch"]
    assert DIFF in (folder / names[0]).read_text()


def test_a_patch_alone_has_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))
    box = tmp_path / "a.mbx"
    box.write_text(mail("[PATCH v2] mm: one thing", f"Why.\n---\n{DIFF}"))
    folder = given_series(str(box))
    assert [p.name for p in series_patches(folder)] == ["0001-mm-one-thing.patch"]


def test_a_mailbox_without_a_patch(tmp_path: Path) -> None:
    box = tmp_path / "a.mbx"
    box.write_text(mail("hello", "no diff"))
    with pytest.raises(UsageError, match="no mail of it holds a patch"):
        given_series(str(box))


@pytest.mark.parametrize(
    "content",
    [
        "diff --git a/l b/l\nindex 0..1\nGIT binary patch\nliteral 3\n",
        "diff --git a/l b/l\nBinary files a/l and b/l differ\n",
    ],
)
def test_a_binary_diff_is_said_to_be_one(tmp_path: Path, content: str) -> None:
    folder = files(tmp_path / "s", "0001-a.patch", content=content)
    with pytest.raises(UsageError, match=r"0001-a\.patch changes a binary file"):
        given_series(str(folder))
