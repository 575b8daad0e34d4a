# SPDX-License-Identifier: GPL-2.0-only
"""report, judge and list on stored runs: good ones, edited ones, half ones; and bad input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.cli import main
from common.paths import CHECKOUT
from common.record import Run, Trial, schema_text, seal
from tests.conftest import RECORDED

Recorded = Callable[..., Trial]


@pytest.fixture
def run_folder(tmp_path: Path, recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sealed run of one recorded trial, as the only run there is."""
    runs = tmp_path / "runs"
    folder = runs / "recorded"
    folder.mkdir(parents=True)
    shutil.copytree(RECORDED / "main", folder / "main")
    trial = recorded("main")
    run = Run(stage=1, tool="t", commit="c", started="s", command=("run", "1"), trials=(trial,))
    (folder / "record.json").write_text(run.model_dump_json())
    seal(folder)
    monkeypatch.setenv("KEXEC_STAGES_RUNS", str(runs))
    return folder


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr says, which must be one line."""
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


def test_judge_again(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", run_folder.name]) == 0
    assert "stage 1: PASS" in capsys.readouterr().out


def test_any_edited_file_is_noticed(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(p for p in run_folder.rglob("*") if p.is_file()):
        if path.name == "SHA256SUMS":
            continue
        original = path.read_bytes()
        if not original:
            continue
        path.write_bytes(original[:-2] + bytes([original[-2] ^ 1]) + original[-1:])
        assert main(["judge", run_folder.name]) == 2, path
        assert f"{path.relative_to(run_folder)} was edited" in sentence(capsys)
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
    assert "its raw files do not" in sentence(capsys)


def test_added_and_missing_files(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "extra").write_text("x")
    assert main(["judge", run_folder.name]) == 2
    assert "extra was added" in sentence(capsys)
    (run_folder / "extra").unlink()
    (run_folder / "main" / "domain.xml").unlink()
    assert main(["judge", run_folder.name]) == 2
    assert "main/domain.xml is missing" in sentence(capsys)


def test_half_a_run(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "record.json").unlink()
    assert main(["report", run_folder.name]) == 2
    assert "no finished run" in sentence(capsys)


def test_damaged_record(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_folder / "record.json").write_text('{"stage": 1,')
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


def test_report_json_follows_the_schema(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", run_folder.name, "--format", "json"]) == 0
    Run.model_validate_json(capsys.readouterr().out)
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
    assert "jump (host)" in words
    assert any(word.startswith("in all ") for word in words)
