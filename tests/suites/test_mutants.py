# SPDX-License-Identifier: GPL-2.0-only
"""The mutants of tests/mutants apply, and whoever does not notice one is found out. No boots."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from common.cli import test as test_verb
from common.cli.parser import main
from common.errors import HarnessError, UsageError
from common.judge.verdict import judge
from common.record.evidence import Run, Trial
from common.stage import series
from common.stage.loading import load_stage
from common.stage.series import patches_of
from common.suites.mutants import (
    FOLDER,
    Finding,
    Mutant,
    apply_mutant,
    evaluate,
    find_out,
    foreign_mutant,
    mutants,
    read_mutant,
)
from common.suites.promises import promises
from kernel.errors import PatchError
from tests.conftest import sentence
from tests.judge.test_verdict import replacing
from tests.stored import write_record

NAMES = sorted(path.stem for path in FOLDER.glob("*.patch"))
HEADER = "SPDX-License-Identifier: GPL-2.0-only\nRun: 1 --guest-memory 64\n"
DIFF = """
A mutant.

diff --git a/README.md b/README.md
--- a/README.md
+++ b/README.md
@@ -1,1 +1,1 @@
-what is not there
+something else
"""
Recorded = Callable[..., Trial]


def written(tmp_path: Path, fields: str, diff: str = DIFF) -> Path:
    file = tmp_path / "some-mutant.patch"
    file.write_text(HEADER + fields + diff)
    return file


def mutant(tmp_path: Path, fields: str) -> Mutant:
    return read_mutant(written(tmp_path, fields))


@pytest.mark.parametrize("name", NAMES)
def test_a_mutant_applies(name: str, tmp_path: Path) -> None:
    (one,) = mutants((name,))
    apply_mutant(one, tmp_path / "copy")
    assert one.checkout_diff or one.kernel_diff
    changed = re.findall(r"^\+\+\+ b/(.*)$", one.checkout_diff, re.M)
    for path in changed:
        assert (tmp_path / "copy" / path).read_text() != (FOLDER.parents[1] / path).read_text()
    assert "linux/" not in "".join(re.findall(r"^diff .*$", one.kernel_diff, re.M))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_kernels_part_is_the_last_patch_of_the_series(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In stage 1, too, which has no series of its own."""
    one = next(m for m in mutants() if m.stage == number and m.kernel_diff)
    before = [patch.name for patch in patches_of(load_stage(number))]
    apply_mutant(one, tmp_path / "copy")
    monkeypatch.setattr(series, "OURS", tmp_path / "copy" / "kernel" / "series")
    after = [patch.name for patch in patches_of(load_stage(number))]
    assert after == [*before, f"0001-{one.name}.patch"]


def test_each_claim_that_can_be_faked_has_its_mutant() -> None:
    """What the mutants are about, by who must catch them: none may be dropped unnoticed."""
    assert {(one.stage, one.catcher) for one in mutants()} >= {
        (1, "same_pages"),
        (1, "host_saw_guest"),
        (1, "build_ids"),
        (1, "host_saw_kernels"),
        (1, "console_order"),
        (1, "no_reset"),
        (1, "outgoing_rules"),
        (1, "judge"),
        (2, "no_device_reset"),
        (2, "dma_in_gap"),
        (2, "bus_mastering_kept"),
        (3, "never_off"),
        (3, "reuse_faults"),
    }


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("Caught-by: no_such_check\n", "stage 1 has no check 'no_such_check'"),
        ("Caught-by: same_pages\nMay-break: nothing\n", "stage 1 has no check 'nothing'"),
        ("Cought-by: same_pages\n", "a mutant has no field Cought-by"),
        ("", "a mutant has Run, and one of Caught-by and Refused-with"),
        ("Caught-by: same_pages\nRefused-with: x\n", "one of Caught-by and Refused-with"),
    ],
)
def test_a_file_that_is_no_mutant(fields: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=re.escape(says)):
        mutant(tmp_path, fields)


def test_a_mutant_that_would_change_nothing(tmp_path: Path) -> None:
    plain = DIFF.replace("diff --git a/README.md b/README.md\n", "")
    with pytest.raises(HarnessError, match="a mutant has a diff of git's"):
        read_mutant(written(tmp_path, "Caught-by: same_pages\n", plain))


@pytest.mark.parametrize("git", [True, False])
def test_somebody_elses_patch_is_of_git_or_plain(git: bool, tmp_path: Path) -> None:
    text = DIFF if git else DIFF.replace("diff --git a/README.md b/README.md\n", "")
    file = written(tmp_path, "", text + text.partition("A mutant.\n\n")[2])
    assert foreign_mutant(file, 1).kernel_diff.count("+++ b/README.md") == 2


def test_a_mutant_that_no_longer_applies(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match=r"does not apply: hunk 1 of README\.md"):
        apply_mutant(mutant(tmp_path, "Caught-by: same_pages\n"), tmp_path / "copy")


def test_who_must_catch_it_must(recorded: Recorded, tmp_path: Path) -> None:
    def found(old: str, new: str, fields: str) -> Finding:
        trial = recorded("main", line="dialogue", edit=replacing(old, new))
        run = Run(stage=1, tool="t", commit="c", started="s", command=(), trials=(trial,))
        return evaluate(mutant(tmp_path, fields), judge(run, load_stage(1)))

    moved = ("pfn.moved=0", "pfn.moved=3")
    assert found(*moved, "Caught-by: same_pages\n").caught
    other = found(*moved, "Caught-by: ram_equal\n")
    assert (other.caught, "did not notice" in other.seen) == (False, True)
    unnoticed = found("preserve.state.us=", "preserve.state.us=1", "Caught-by: same_pages\n")
    assert (unnoticed.caught, "PASS: 1/1 passed" in unnoticed.seen) == (False, True)
    more = ("finish=0", "finish=-16")
    assert not found(*more, "Caught-by: same_pages\n").caught
    corrupted = ("# pfn.moved=0", "# finish2=1\n# pfn.moved=3")
    stranger = found(*corrupted, "Caught-by: dialogue_complete\nMay-break: ram_equal\n")
    assert (stranger.caught, stranger.seen) == (False, "it breaks what it should not: same_pages")


def test_the_judge_must_refuse_in_these_words(run_folder: Path, tmp_path: Path) -> None:
    refused = mutant(tmp_path, "Refused-with: main/dialogue.jsonl, line\n")
    assert not find_out(refused, run_folder).caught
    path = run_folder / "main" / "dialogue.jsonl"
    path.write_text(path.read_text().replace("# pfn.moved=0", "# pfn.moved=1"))
    write_record(run_folder)
    assert find_out(refused, run_folder).caught
    other = mutant(tmp_path, "Refused-with: another sentence\n")
    assert not find_out(other, run_folder).caught
    assert not find_out(mutant(tmp_path, "Caught-by: same_pages\n"), run_folder).caught


@pytest.mark.parametrize(("answers", "status"), [("cc", 0), ("cn", 1), ("ce", 3), ("ne", 3)])
def test_the_exit_status(
    answers: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = iter(answers)

    def try_mutant(one: Mutant, workspace: Path) -> Finding | HarnessError:
        workspace.mkdir()
        answer = next(given)
        return (
            HarnessError("it broke")
            if answer == "e"
            else Finding(one, answer == "c", "same_pages", "x")
        )

    monkeypatch.setattr(test_verb, "try_mutant", try_mutant)
    assert main(["test", "--mutants", *NAMES[:2]]) == status
    said = capsys.readouterr().out
    assert f"{answers.count('c')} of 2 mutants noticed" in said
    assert said.count("NOT NOTICED") == answers.count("n")
    assert said.count("ERROR") == answers.count("e")


def test_a_mutant_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "--mutants", "nothing"]) == 2
    said = sentence(capsys)
    assert said.startswith("kexec-stages: there is no mutant 'nothing'; give the path of a patch")
    assert f", {NAMES[-1]}" in said
    with pytest.raises(UsageError):
        mutants(("nothing",))


def test_the_page_of_promises_is_up_to_date() -> None:
    page = (FOLDER.parents[1] / "docs" / "promises.md").read_text()
    assert page == promises(), "./kexec-stages list --promises > docs/promises.md"
    assert "| `same_pages`: Are all page frame numbers unchanged? |" in page


def test_words_that_only_pytest_knows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["list", "-k", "x"])
    assert "unrecognized arguments: -k x" in capsys.readouterr().err
