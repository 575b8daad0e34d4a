# SPDX-License-Identifier: GPL-2.0-only
"""The folder that TestGrid reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import junitparser
import pytest

from common.cli.parser import main
from common.record.evidence import Run
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD
from tests.stored import store_run, write_record

# TestGrid's own, for the names of JUnit files: context, timestamp, thread
SUITES = re.compile(r".+/junit(_[^_]+)?(_\d+-\d+)?(_\d+)?\.xml")


def written(folder: Path, *names: str) -> Path:
    assert main(["report", *names, "--format", "testgrid", "--output", str(folder)]) == 0
    return folder


def test_testgrid_has_a_file_for_each_run(
    run_with_controls: Path, run_2_folder: Path, tmp_path: Path
) -> None:
    folder = written(tmp_path / "17", run_with_controls.name, run_2_folder.name)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    suites = {name for name in files if SUITES.fullmatch(name)}
    assert files - suites == {"started.json", "finished.json"}
    assert len(suites) == 2
    started = json.loads((folder / "started.json").read_text())
    finished = json.loads((folder / "finished.json").read_text())
    assert finished["passed"] is True
    record = Run.model_validate_json((run_2_folder / "record.json").read_text())
    seconds = (record.trials[0].setting.ended_ns - record.trials[0].setting.started_ns) / 1e9
    assert isinstance(started["timestamp"], int)
    assert finished["timestamp"] - started["timestamp"] >= int(seconds)
    assert all(isinstance(value, str) for value in finished["metadata"].values())
    build_id = finished["metadata"]["job-version"]
    assert re.fullmatch(r"[0-9a-f]{40}", build_id)


def test_testgrid_of_a_crash_is_a_failure(runs: Path, tmp_path: Path) -> None:
    """Its parser may not know `error`."""
    folder = store_run(
        runs / "failed",
        (KVM_MEMFD / "main", "main"),
        (KVM_MEMFD / "control-byte-flipped", "control-byte-flipped"),
    )
    path = folder / "main" / "trial.json"
    setting = json.loads(path.read_text())
    path.write_text(json.dumps(setting | {"ended": "timeout", "ended_detail": "fell silent"}))
    write_record(folder)
    found = written(tmp_path / "18", "failed")
    assert json.loads((found / "finished.json").read_text())["passed"] is False
    (path,) = found.rglob("junit*.xml")
    (suite,) = junitparser.JUnitXml.fromfile(str(path))
    bad = {case.name: case.result[0] for case in suite if case.result}
    assert all(isinstance(result, junitparser.Failure) for result in bad.values())
    assert "fell silent" in bad["trial_ended"].text
    assert bad["trial_ended"].type == "TIMEOUT"
    assert (suite.failures, suite.errors) == (len(bad), 0)


def test_testgrid_writes_over_nothing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", run_folder.name, "--format", "testgrid"]
    assert main(command) == 2
    assert "name it with --output" in sentence(capsys)
    assert main([*command, "--output", str(tmp_path)]) == 2
    assert "it already exists" in sentence(capsys)
