# SPDX-License-Identifier: GPL-2.0-only
"""report, judge and list on stored runs: good ones, edited ones, half ones; and bad input."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.cli.parser import main
from common.errors import UsageError
from common.paths import CHECKOUT
from common.record.evidence import Run, schema_text
from common.record.seal import seal
from common.record.sources import digests
from common.stage.loading import load_stage
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD
from tests.stored import edit_json, store_run, write_record


def test_judge_again(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", run_folder.name]) == 0
    assert "stage 1: PASS" in capsys.readouterr().out


def test_any_edited_file_is_noticed(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(p for p in run_folder.rglob("*") if p.is_file()):
        original = path.read_bytes()
        if not original:
            continue
        path.write_bytes(original[:-2] + bytes([original[-2] ^ 1]) + original[-1:])
        assert main(["judge", run_folder.name]) == 2, path
        says = sentence(capsys)
        assert f"{path.relative_to(run_folder)} was edited" in says or path.name == "SHA256SUMS"
        path.write_bytes(original)
    assert main(["judge", run_folder.name]) == 0


def test_resealing_an_edited_record_does_not_help(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_folder / "record.json"
    text = record.read_text()
    assert '"finish":"0"' in text
    record.write_text(text.replace('"finish":"0"', '"finish":"-16"'))
    seal(run_folder)
    assert main(["judge", run_folder.name]) == 2
    said = "what its raw files do not: sides.1.facts.finish is '-16', by the raw files '0'"
    assert said in sentence(capsys)


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_forged_raw_file_is_noticed(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Record and seal made anew after an edit of one raw file: the others still say otherwise."""
    edited(run_folder / "main" / "dialogue.jsonl", "# finish=0", "# finish=7")
    write_record(run_folder)
    assert main(["judge", run_folder.name]) == 2
    said = sentence(capsys)
    assert "main/dialogue.jsonl, line " in said
    assert "is not what dialogue.log has" in said


def test_a_control_is_not_passed_off_as_a_main_run(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store_run(runs / "forged", (KVM_MEMFD / "control-kho-off", "main"))
    edited(folder / "main" / "trial.json", '"control": "kho-off"', '"control": null')
    write_record(folder)
    assert main(["judge", folder.name]) == 2
    assert "main/trial.json is of control None, its cmdline of kho-off" in sentence(capsys)
    edited(folder / "main" / "trial.json", " stage.control=kho-off", "")
    write_record(folder)
    assert main(["judge", folder.name]) == 2
    assert "main/trial.json has another cmdline than the console" in sentence(capsys)


def test_a_trial_left_out_or_renamed_is_noticed(
    run_with_controls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_with_controls / "record.json"
    run = Run.model_validate_json(record.read_text())
    record.write_text(run.model_copy(update={"trials": run.trials[:-1]}).model_dump_json())
    seal(run_with_controls)
    assert main(["judge", run_with_controls.name]) == 2
    assert "record.json leaves out trial" in sentence(capsys)
    (run_with_controls / "main").rename(run_with_controls / "other")
    seal(run_with_controls)
    assert main(["judge", run_with_controls.name]) == 2
    assert "the trial in other says that it is 'main'" in sentence(capsys)


def test_judge_wants_the_seal_that_was_told(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seal_of_run = hashlib.sha256((run_folder / "SHA256SUMS").read_bytes()).hexdigest()
    assert main(["judge", run_folder.name, "--seal", seal_of_run]) == 0
    assert f"seal {seal_of_run}" in capsys.readouterr().out
    assert main(["judge", run_folder.name, "--seal", "0" * 64]) == 2
    assert "is another run" in sentence(capsys)


def test_judge_names_controls_that_were_not_run(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", run_folder.name]) == 0
    names = ", ".join(control.name for control in load_stage(1).controls)
    assert f"controls that were not run: {names}\n" in capsys.readouterr().out


def test_added_and_missing_files(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "extra").write_text("x")
    assert main(["judge", run_folder.name]) == 2
    assert "holds 'extra', which is not a file of a run" in sentence(capsys)
    (run_folder / "extra").unlink()
    (run_folder / "main" / "qemu.log").write_text("x")
    assert main(["judge", run_folder.name]) == 2
    assert "main/qemu.log was added" in sentence(capsys)
    (run_folder / "main" / "qemu.log").unlink()
    (run_folder / "main" / "domain.xml").unlink()
    assert main(["judge", run_folder.name]) == 2
    assert "main/domain.xml is missing" in sentence(capsys)


def test_half_a_run(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "record.json").unlink()
    assert main(["report", run_folder.name]) == 2
    assert "not a finished run" in sentence(capsys)


def test_a_record_of_another_format_is_for_another_version(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    seal(run_folder)
    assert main(["judge", str(run_folder)]) == 2
    said = sentence(capsys)
    assert "recorded by kexec-stages 0.1.0, commit 0123456789ab" in said
    assert "have format 1; this program reads 5" in said


def test_damaged_record(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "record.json").write_text('{"stage": 1,')
    assert main(["report", run_folder.name]) == 2
    assert "record.json was edited" in sentence(capsys)
    seal(run_folder)
    assert main(["report", run_folder.name]) == 2
    assert "record.json is damaged" in sentence(capsys)


def test_report_is_the_same_twice_and_narrow(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for _ in range(2):
        assert main(["report", run_folder.name]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert max(map(len, texts[0].splitlines())) <= 72


def test_report_into_a_file_that_cannot_be(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "nowhere" / "report"
    assert main(["report", run_folder.name, "--output", str(target)]) == 3
    assert "No such file or directory" in sentence(capsys)
    assert main(["report", run_folder.name, "--output", "/dev/full"]) == 3
    assert "No space left on device" in sentence(capsys)
    assert Path("/dev/full").is_char_device()


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Run"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["judge", "nothing"], 2, "there is no run 'nothing'"),
        (["run", "9"], 2, "there is no stage 9"),
        (["run", "1", "--control", "nonsense"], 2, "stage 1 has no control 'nonsense'"),
        (["gate", "--until", "9"], 2, "there is no stage 9"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == status
    assert says in sentence(capsys)


def test_usage_errors_exit_2() -> None:
    for words in (["run"], ["run", "one"], ["run", "1", "--repeat", "0"], ["nonsense"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2


def test_the_published_schema_is_current() -> None:
    published = (CHECKOUT / "docs" / "record.schema.json").read_text()
    assert published == schema_text(), "./kexec-stages list --schema > docs/record.schema.json"


def test_the_picture_is_of_the_blackout(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", run_folder.name, "--format", "svg"]) == 0
    picture = ElementTree.fromstring(capsys.readouterr().out)
    words = [element.text or "" for element in picture.iter() if element.tag.endswith("text")]
    assert "kexec (host)" in words
    assert any(word.startswith("in all ") for word in words)


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *, says: str) -> None:
    """Sealed anew, with the record that follows where one does: refused by every verb."""
    with contextlib.suppress(UsageError):
        write_record(folder)
    seal(folder)
    for words in (["judge"], ["report"], ["bundle"], ["compare", str(folder)]):
        assert main([*words, str(folder)]) == 2, words
        assert says in sentence(capsys)


def test_a_trial_is_of_this_run_and_planned(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_folder / "main", run_folder / "repeat-02")
    edit_json(run_folder / "repeat-02" / "trial.json", lambda d: d.update(name="repeat-02"))
    refused(run_folder, capsys, says="its nonce does not follow from run.json")
    (run_folder / "repeat-02").rename(run_folder / ".hidden")
    refused(run_folder, capsys, says="which is not a file of a run")
    (run_folder / ".hidden").rename(run_folder / "main" / "deeper")
    refused(run_folder, capsys, says="which is not a file of a run")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("command", ["run", "3"], "its nonce does not follow from run.json"),
        ("commit", "f" * 12, "its nonce does not follow from run.json"),
        ("started", "0001-01-01T00:00:00+00:00", "its nonce does not follow from run.json"),
        ("planned", ["main", "control-panic"], "its nonce does not follow from run.json"),
        ("stage", 2, "run.json is of stage 2"),
        ("command", 5, "run.json is damaged: command"),
    ],
)
def test_what_made_a_run_is_bound_to_it(
    run_folder: Path, capsys: pytest.CaptureFixture[str], key: str, value: object, says: str
) -> None:
    edit_json(run_folder / "run.json", lambda made: made.update({key: value}))
    with contextlib.suppress(ValueError, UsageError):
        write_record(run_folder)
    seal(run_folder)
    assert main(["judge", str(run_folder)]) == 2
    assert says in sentence(capsys)


def test_a_planned_trial_that_left_nothing(
    run_with_controls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(run_with_controls / "control-panic")
    refused(run_with_controls, capsys, says="trial control-panic was planned (run.json)")


def test_a_run_made_by_other_code_is_told_as_such(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = digests()
    monkeypatch.setattr("common.record.sources.digests", lambda: own | {"workload": "0" * 64})
    assert main(["judge", str(run_folder)]) == 7
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(
        "stage 1: OTHER CODE: made by commit 0123456789ab, not with this checkout's workload"
    )
    assert "its raw files give PASS" in said
    assert main(["compare", str(run_folder), str(run_folder)]) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.mkdir(), "is not a file of a run"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 6 << 30), "MiB at most"),
    ],
)
@pytest.mark.parametrize("name", ["main/console.log", "main/trial.json", "record.json"])
def test_what_is_no_file_is_not_opened(
    name: str,
    make: Callable[[Path], object],
    says: str,
    run_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (run_folder / name).unlink()
    make(run_folder / name)
    assert main(["judge", str(run_folder)]) == 2
    text = sentence(capsys)
    assert says in text or "holds" in text or "at most" in text or "record.json" in text


@pytest.mark.parametrize("name", ["-rf", ".run", "a\x1b[2Jb", "a\u202eb"])
def test_a_bundle_has_a_name_that_can_be_typed(
    name: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = run_folder.rename(run_folder.with_name(name))
    assert main(["bundle", "-o", str(tmp_path / "b.zip"), str(renamed)]) == 2
    assert "rename the run" in sentence(capsys)
