# SPDX-License-Identifier: GPL-2.0-only
"""`gate --from-mail`: the mailbox, what it stands on, what b4 reads, and the verb itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.cli import gate as verb
from common.cli.parser import main
from common.errors import CannotRunHere, Exit, HarnessError, StagesError, UsageError
from common.judge.stored_run import opened
from common.judge.verdict import Verdict
from common.stage.loading import load_stage
from common.suites import each_patch
from common.suites.each_patch import Step
from common.suites.mailed.base import check_base
from common.suites.mailed.mailbox import Series, read_series
from common.suites.mailed.review import Entry, of_error, of_stage, of_steps, review_json
from kernel.errors import KernelBuildError, PatchError
from tests.conftest import FakeHypervisor, sentence
from tests.recorded_trial import KVM_MEMFD
from tests.stored import store_run

DIFF = "diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n"
BASE = "0123456789abcdef0123456789abcdef01234567"
BEFORE = ("a" * 40, "b" * 40)
BELOW = f"base-commit: {BASE}\n" + "".join(f"prerequisite-patch-id: {one}\n" for one in BEFORE)


def mail(subject: str, body: str) -> str:
    return (
        "From git@z Thu Jan  1 00:00:00 1970\nFrom: A <a@example.org>\nTo: list@example.org\n"
        f"Message-ID: <{abs(hash(subject))}@example.org>\nSubject: {subject}\n"
        f"Content-Type: text/plain; charset=utf-8\n\n{body}\n"
    )


COVER = mail("[PATCH v2 0/2] mm: two things", f"The pages stay where they are.\n\n{BELOW}")
FIRST = mail("[PATCH v2 1/2] mm: first", f"Why.\n---\n{DIFF}")
SECOND = mail("[PATCH v2 2/2] mm: second", f"Why.\n---\n{DIFF}")
ANSWER = mail("Re: [PATCH v2 2/2] mm: second", f"Rather so:\n{DIFF}")


@pytest.fixture
def box(tmp_path: Path) -> Callable[..., Path]:
    def write(*mails: str) -> Path:
        path = tmp_path / "v2_two_things.mbx"
        path.write_text("".join(mails))
        return path

    return write


def test_a_series_and_what_it_stands_on(box: Callable[..., Path]) -> None:
    series = read_series(box(SECOND, COVER, ANSWER, FIRST))
    assert (series.title, series.version) == ("mm: two things", 2)
    assert series.subjects == ("mm: first", "mm: second")
    assert series.base == BASE
    assert series.prerequisites == BEFORE
    assert b"The pages stay where they are." in series.answered


def test_the_cover_letter_that_b4_am_lays_beside_it(box: Callable[..., Path]) -> None:
    path = box(FIRST, SECOND)
    assert read_series(path).base is None
    path.with_suffix(".cover").write_text(COVER)
    assert read_series(path).base == BASE
    assert read_series(path).title == "mm: two things"


def test_a_patch_alone(box: Callable[..., Path]) -> None:
    series = read_series(box(mail("[PATCH] mm: one", f"Why.\n---\n{DIFF}\n-- \n2.39\n\n{BELOW}")))
    assert (series.title, series.subjects, series.base) == ("mm: one", ("mm: one",), BASE)


@pytest.mark.parametrize(
    ("mails", "says"),
    [
        ((COVER, FIRST), "of 2 patches there is no 2"),
        ((COVER,), "no mail of it holds a patch"),
        ((FIRST, SECOND, SECOND), "patch 2/2 is in there more than once"),
        ((FIRST, SECOND.replace("v2", "v3")), r"more than one version of a series \(v2, v3\)"),
        ((FIRST, SECOND.replace("2/2", "2/3")), "of series of different lengths"),
    ],
)
def test_a_series_that_is_not_whole(
    box: Callable[..., Path], mails: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        read_series(box(*mails))


def git(tree: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *identity, *words], cwd=tree, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A git tree with two commits on its base."""
    folder = tmp_path / "tree"
    folder.mkdir()
    git(folder, "init", "-q")
    for number in range(3):
        (folder / "f").write_text(f"line {number}\n")
        git(folder, "add", "f")
        git(folder, "commit", "-q", "-m", f"commit {number}")
    return folder


def series_on(base: str | None, *prerequisites: str) -> Series:
    return Series("t", 1, ("a",), b"", base, prerequisites)


def patch_id(tree: Path, commit: str) -> str:
    shown = git(tree, "show", commit)
    done = subprocess.run(
        ["git", "patch-id", "--stable"], input=shown, check=True, capture_output=True, text=True
    )
    return done.stdout.split()[0]


def test_a_tree_that_stands_on_the_base(tree: Path) -> None:
    base = git(tree, "rev-parse", "HEAD~2")
    found = check_base(series_on(base, patch_id(tree, "HEAD~1"), patch_id(tree, "HEAD")), tree)
    assert found.status == "pass", found
    assert found.summary == f"HEAD stands on base-commit {base[:12]}, 2 commits after it"
    assert found.details.count("prerequisite") == 2
    assert git(tree, "status", "--porcelain") == ""


def test_what_the_tree_lacks_is_a_warning(tree: Path, tmp_path: Path) -> None:
    base = git(tree, "rev-parse", "HEAD~1")
    lacking = check_base(series_on(base, patch_id(tree, "HEAD"), "c" * 40), tree)
    assert (lacking.status, lacking.summary) == (
        "warn",
        f"prerequisite {'c' * 12}: no commit since the base has that patch id",
    )
    elsewhere = check_base(series_on(BASE, "c" * 40), tree)
    assert elsewhere.summary == f"base-commit {BASE[:12]} is not in the tree"
    git(tree, "checkout", "-q", "HEAD~2")
    behind = check_base(series_on(base), tree)
    assert behind.summary.endswith("is in the tree, and HEAD does not stand on it")
    assert check_base(series_on(None), tree).summary == "the mails name no base-commit"
    plain = tmp_path / "plain"
    plain.mkdir()
    for where in (plain, None):
        assert "is not a git tree" in check_base(series_on(base), where).details


def step(status: str = "PASS", warnings: tuple[str, ...] = ()) -> Step:
    verdict = Verdict(stage=1, status=status, why="why", trials=(), controls=())  # type: ignore[arg-type]
    return Step(Path("0001-mm-first.patch"), 35.2, warnings, verdict, Path("run"))


@pytest.mark.parametrize(
    ("steps", "error", "so"),
    [
        ([step(), step()], None, ("pass", "2 build without a warning, boot, update live")),
        ([step(), step(warnings=("f.c: warning: x",))], None, ("fail", "2 of 2: f.c: warning: x")),
        ([step("CRASHED")], None, ("fail", "1 of 2: CRASHED: why")),
        ([step("DISTURBED")], None, ("warn", "1 of 2: DISTURBED: why")),
        ([step()], KernelBuildError("no"), ("fail", "2 of 2: no")),
        ([], PatchError(Path("p"), "does not apply"), ("fail", "1 of 2: does not apply")),
        ([], HarnessError("no room"), ("warn", "1 of 2: no room")),
    ],
)
def test_the_walk_in_a_word(
    steps: list[Step], error: StagesError | None, so: tuple[str, str]
) -> None:
    found = of_steps(steps, error, 2)
    assert (found.status, found.summary) == so


def test_what_b4_reads(run_folder: Path) -> None:
    with opened(str(run_folder)) as stored:
        good = of_stage(stored.stage, stored.verdict)
        broken = stored.verdict.model_copy(update={"status": "REFUSED", "why": "as it says"})
        bad = of_stage(stored.stage, broken)
    assert (good.tool, good.status, bad.status) == ("01_kvm_memfd", "pass", "fail")
    assert good.summary.startswith("PASS: 1/1 passed")
    assert of_error("x", CannotRunHere("no memory")).status == "warn"
    home = Entry("t", "warn", "in /home/user/linux\x1b[2J", "")
    (first, second) = json.loads(review_json([good, home]))
    assert set(first) == {"tool", "status", "summary"}
    assert second == {
        "tool": "t",
        "status": "warn",
        "summary": "in ~/linux\N{REPLACEMENT CHARACTER}[2J",
    }


Gate = Callable[..., int]


@pytest.fixture
def gate(
    box: Callable[..., Path], runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    """`gate --from-mail --until 1`, whose patches and whose stage come to what is given."""
    monkeypatch.setenv("KEXEC_STAGES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verb, "Hypervisor", FakeHypervisor)
    monkeypatch.setattr(verb, "all_stages", lambda: (load_stage(1),))
    path = box(COVER, FIRST, SECOND)

    def run(*words: str, steps: tuple[Step | StagesError, ...] = (step(), step())) -> int:
        def walk(*_words: Any) -> Iterator[Step]:
            for one in steps:
                if isinstance(one, StagesError):
                    raise one
                yield one

        def execute(*_words: Any, **_beside: object) -> tuple[Any, Any, Path]:
            folder = store_run(runs / "stage-1", (KVM_MEMFD / "main", "main"))
            with opened(str(folder)) as stored:
                return stored.run, stored.verdict, folder

        monkeypatch.setattr(each_patch, "steps", walk)
        monkeypatch.setattr(verb, "execute_run", execute)
        command = ["gate", "--from-mail", str(path), "--from", "B <b@example.org>"]
        return main([*command, "--until", "1", *words])

    return run


def left(runs: Path) -> Path:
    (folder,) = [one for one in runs.iterdir() if "-mail-" in one.name]
    assert folder.suffix != ".part"
    return folder


def test_a_series_that_is_good(gate: Gate, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate() == Exit.PASS
    said = capsys.readouterr()
    folder = left(runs)
    assert said.out == (folder / "gate.ktap").read_text()
    assert "\nok 1 01_kvm_memfd\n# base: " in said.out
    assert f"gate.ktap, reply.mail, review.json: {folder}" in said.err
    entries = json.loads((folder / "review.json").read_text())
    assert [(one["tool"], one["status"]) for one in entries] == [
        ("base", "warn"),  # Debian's package is no git tree
        ("each patch", "pass"),
        ("01_kvm_memfd", "pass"),
    ]
    reply = (folder / "reply.mail").read_text()
    assert "Subject: Re: [PATCH v2 0/2] mm: two things" in reply
    assert "> The pages stay where they are." in reply


def test_what_stdout_has(gate: Gate, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate("--print", "json") == Exit.PASS
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert left(runs)


def test_a_patch_that_does_not_build_ends_it(
    gate: Gate, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = KernelBuildError("0002-mm-second: mm/f.c:1: error: x")
    assert gate("--print", "json", steps=(step(), error)) == Exit.NO_KERNEL
    entries = json.loads(capsys.readouterr().out)
    assert [(one["tool"], one["status"]) for one in entries][1:] == [("each patch", "fail")]
    assert entries[1]["summary"].startswith("2 of 2: 0002-mm-second")
    folder = left(runs)
    assert not (folder / "reply.mail").exists()
    assert "not ok 1 each_patch\n# base: " in (folder / "gate.ktap").read_text()


@pytest.mark.parametrize(
    ("steps", "status"),
    [((step("CRASHED"),), Exit.CRASHED), ((step(warnings=("warning: x",)),), Exit.FAIL)],
)
def test_a_patch_that_falls_ends_it(gate: Gate, steps: tuple[Step, ...], status: Exit) -> None:
    assert gate(steps=steps) == status


def test_what_cannot_be_meant(
    gate: Gate, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate("--series", "none") == Exit.USAGE
    assert "no --series, --image, --baseline" in sentence(capsys)
    assert main(["gate", "--print", "json"]) == Exit.USAGE
    assert "--print and --from go with --from-mail" in sentence(capsys)
    other = tmp_path / "series.txt"
    other.write_text(FIRST)
    assert main(["gate", "--from-mail", str(other)]) == Exit.USAGE
    assert "is not a mailbox" in sentence(capsys)
    assert not list(runs.iterdir())
