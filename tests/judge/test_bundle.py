# SPDX-License-Identifier: GPL-2.0-only
"""Bundles: the same bytes twice, every byte counts, nothing is written where it must not be."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from common.cli.parser import main
from common.errors import UsageError
from common.judge import bundle
from common.paths import CHECKOUT
from tests.conftest import sentence

COMMENT = b"kexec-stages bundle, sha256 of all bytes before: "


@pytest.fixture
def archive(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    target = tmp_path / "bundle.zip"
    assert main(["bundle", run_folder.name, "-o", str(target)]) == 0
    capsys.readouterr()
    return target


def with_digest(files: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    """An archive as a forger makes it, who knows how the digest is computed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
        archive.comment = COMMENT + b"0" * 64
    covered = buffer.getvalue()[:-64]
    return covered + hashlib.sha256(covered).hexdigest().encode()


def test_the_same_run_gives_the_same_bytes(archive: Path, run_folder: Path) -> None:
    for path in run_folder.rglob("*"):
        os.utime(path, (1, 1))
    assert bundle.pack(run_folder) == archive.read_bytes()


def test_a_bundle_is_a_run_everywhere(
    archive: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", str(archive)]) == 0
    judged = capsys.readouterr().out
    assert main(["judge", run_folder.name]) == 0
    assert capsys.readouterr().out == judged
    assert main(["report", str(archive)]) == 0
    assert "Stage 1" in capsys.readouterr().out


def test_the_seal_stands_for_the_run_in_both(
    archive: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seal = hashlib.sha256((run_folder / "SHA256SUMS").read_bytes()).hexdigest()
    assert main(["judge", str(archive), "--seal", seal]) == 0
    assert f"seal {seal}" in capsys.readouterr().out


def test_any_byte_counts(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = archive.read_bytes()
    dice = random.Random(1)
    places = {*range(300), *range(len(data) - 400, len(data))}
    places |= set(dice.sample(range(len(data)), 1000))
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << dice.randrange(8)
        archive.write_bytes(damaged)
        with pytest.raises(UsageError):
            bundle.unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for cut in (0, 3, 63, 64, len(data) // 2, len(data) - 1):
        archive.write_bytes(data[:cut])
        assert main(["judge", str(archive)]) == 2, cut
        sentence(capsys)
    archive.write_bytes(data + b"\0")
    assert main(["judge", str(archive)]) == 2
    assert "its digest is not that of its bytes" in sentence(capsys)


def test_any_byte_of_any_file_counts_after_a_new_digest(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(archive) as opened:
        files: list[tuple[str | zipfile.ZipInfo, bytes]] = [
            (name, opened.read(name)) for name in opened.namelist()
        ]
    dice = random.Random(2)
    for number, (name, content) in enumerate(files):
        places = {0, len(content) - 1, dice.randrange(len(content))} if content else set()
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << dice.randrange(8)
            changed = [*files[:number], (name, bytes(damaged)), *files[number + 1 :]]
            archive.write_bytes(with_digest(changed))
            assert main(["judge", str(archive)]) == 2, (name, place)
            assert "is not as it was sealed" in sentence(capsys)


@pytest.mark.parametrize(
    "name",
    ["../x/a", "/abs/a", "run/../../a", "run//a", "run/./a", "run\\a", "a", "run/a\nb", "run/"],
)
def test_paths_that_lead_out_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = tmp_path / "hostile.zip"
    hostile.write_bytes(with_digest([(zipfile.ZipInfo(name), b"x")]))
    assert main(["judge", str(hostile)]) == 2
    assert "holds a file that no bundle has" in sentence(capsys)


def test_a_symbolic_link_is_unpacked_as_a_file(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("run/link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    hostile = tmp_path / "hostile.zip"
    hostile.write_bytes(with_digest([(link, b"/etc/passwd"), ("run/SHA256SUMS", b"")]))
    target = tmp_path / "out"
    folder = bundle.unpack(hostile, target)
    assert not (folder / "link").is_symlink()
    assert (folder / "link").read_bytes() == b"/etc/passwd"


def test_an_archive_that_would_fill_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundle, "MOST_TOTAL", 1 << 20)
    hostile = tmp_path / "hostile.zip"
    hostile.write_bytes(with_digest([("run/a", bytes(2 << 20))]))
    assert main(["judge", str(hostile)]) == 2
    assert "would unpack to more than 1 MiB" in sentence(capsys)


@pytest.mark.parametrize("content", [b"", b"text\n", b"PK\x03\x04", bytes(200)])
def test_what_is_no_bundle_is_said_so(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["judge", str(path)]) == 2
    sentence(capsys)


def test_an_edited_run_is_not_bundled(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "main" / "qmp.jsonl").write_text("")
    target = tmp_path / "b.zip"
    assert main(["bundle", run_folder.name, "-o", str(target)]) == 2
    assert "main/qmp.jsonl was edited" in sentence(capsys)
    assert not target.exists()


def test_judge_needs_no_qemu_and_no_libvirt(archive: Path) -> None:
    """Another machine: no program in PATH, no libvirt and no pexpect to import, no kernel."""
    program = (
        "import sys\n"
        "for name in ('libvirt', 'libvirt_qemu', 'pexpect', 'kernel'): sys.modules[name] = None\n"
        "from common.cli.parser import main\n"
        f"sys.exit(main(['judge', {str(archive)!r}]))\n"
    )
    environment = {"PATH": "/nonexistent", "PYTHONPATH": str(CHECKOUT), "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("stage 1: PASS")
