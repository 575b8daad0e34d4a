# SPDX-License-Identifier: GPL-2.0-only
"""What cannot be: one sentence, the right exit status, nothing half-written."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.cli.parser import main
from common.paths import CHECKOUT
from tests.conftest import sentence

MAIL = ["--format", "mail", "--from", "t@example.org"]


def command(*words: str) -> str:
    """A shell's words for this program, in another process."""
    return shlex.join([sys.executable, "-m", "common", *words])


def shell(script: str, *wrap: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*wrap, "sh", "-c", script],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "verb",
    [
        ["report"],
        ["report", "--format", "html"],
        ["judge"],
        ["bundle"],
        ["compare", "recorded"],
        ["gate", "--until", "1", "--baseline"],
    ],
)
@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("nothing", "there is no run 'nothing'"),
        ("killed", "killed is not a finished run: it has no record.json (was the harness killed?)"),
        ("unsealed", "unsealed is not as it was sealed: SHA256SUMS is missing or damaged"),
        ("half", "half is not as it was sealed: main/dialogue.jsonl is missing"),
        ("README.md", "README.md is neither a run folder nor a bundle"),
    ],
)
def test_runs_that_are_none(
    verb: list[str],
    run: str,
    says: str,
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("killed", "unsealed", "half"):
        shutil.copytree(run_folder, run_folder.parent / name)
    (run_folder.parent / "killed" / "record.json").unlink()
    (run_folder.parent / "killed" / "SHA256SUMS").unlink()
    (run_folder.parent / "unsealed" / "SHA256SUMS").unlink()
    (run_folder.parent / "half" / "main" / "dialogue.jsonl").unlink()
    monkeypatch.chdir(CHECKOUT)
    assert main([*verb, run]) == 2
    assert says in sentence(capsys)


def test_a_disk_that_is_full(run_folder: Path, tmp_path: Path) -> None:
    """A disk of 16 KiB, in a mount namespace of its own: nothing is left on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = ("unshare", "--map-root-user", "--mount")
    mount = f"mount -t tmpfs -o size=16k none {disk}"
    if shell(mount, *unshare).returncode:
        pytest.skip("no user and mount namespaces here")
    for words in (
        ["report", run_folder.name, *MAIL],
        ["report", run_folder.name, "--format", "html"],
        ["bundle", run_folder.name],
    ):
        target = str(disk / "file")
        script = (
            f"{mount} && head -c 12000 /dev/zero >{disk}/other && echo old >{target} &&"
            f" {{ {command(*words, '--output', target)}; echo $?; ls -A {disk}; cat {target}; }}"
        )
        done = shell(script, *unshare)
        assert done.stdout.split() == ["3", "file", "other", "old"], done
        assert done.stderr.endswith("No space left on device\n")
        assert done.stderr.count("\n") == 1


def test_output_that_cannot_be_written(run_folder: Path) -> None:
    for words in (["report"], ["report", *MAIL], ["judge"], ["report", "--format", "json"]):
        done = shell(f"{command(*words, run_folder.name)} >/dev/full")
        assert (done.returncode, done.stderr) == (
            3,
            "kexec-stages: output: No space left on device\n",
        )
        done = shell(f"{command(*words, run_folder.name)} | true")
        assert done.stderr == ""


def test_where_there_is_no_folder_or_one_in_the_way(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("report", "bundle"):
        assert main([verb, run_folder.name, "--output", str(tmp_path / "no" / "file")]) == 3
        assert "No such file or directory" in sentence(capsys)
        assert main([verb, run_folder.name, "--output", str(run_folder)]) == 3
        assert "Is a directory" in sentence(capsys)


def test_a_file_stays_what_it_was_when_a_report_fails(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "mail"
    target.write_text("old")
    words = ["report", run_folder.name, *MAIL, "--output", str(target)]
    assert main([*words, "--in-reply-to", "a\nb@c"]) == 2
    assert sentence(capsys) == (
        "kexec-stages: --in-reply-to: 'a\\nb@c' is not a Message-ID (ID@HOST, with or without <>)\n"
    )
    assert target.read_text() == "old"
    assert main(words) == 0
    assert target.read_text().startswith("From: t@example.org\n")


def test_a_mail_from_nobody(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["report", run_folder.name, "--format", "mail"]) == 2
    assert "git config user.email is not set; give --from" in sentence(capsys)
