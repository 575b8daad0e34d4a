# SPDX-License-Identifier: GPL-2.0-only
"""KCIDB's objects, as kcidb-io takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from kcidb_io.schema import V5_3

from common.cli.parser import main
from common.judge.stored_run import StoredRun, opened
from common.judge.verdict import RunStatus
from common.report.kcidb import _OF_RUN, report_kcidb
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD, VFIO_NOIOMMU
from tests.stored import store_run, write_record

ROOT = "kexec_stages.01_kvm_memfd"


def objects(*runs: StoredRun, **options: str) -> dict[str, Any]:
    """The report, which kcidb-io's own schema must take."""
    found: dict[str, Any] = json.loads(report_kcidb(runs, **options))
    V5_3.validate(found)
    return found


def by_path(found: dict[str, Any]) -> dict[str, Any]:
    return {test["path"]: test for test in found["tests"]}


def test_kcidb_takes_runs_with_controls(run_with_controls: Path, run_2_folder: Path) -> None:
    with opened(run_with_controls.name) as one, opened(run_2_folder.name) as two:
        found = objects(one, two, origin="my_ci")
        mains = [main for verdict in (one.verdict, two.verdict) for main in verdict.trials]
    tests = by_path(found)
    assert found["version"] == {"major": 5, "minor": 3}
    ids = [one["id"] for kind in ("checkouts", "builds", "tests") for one in found[kind]]
    assert len(ids) == len(set(ids))
    assert all(text.startswith("my_ci:") for text in ids)
    builds = {build["id"] for build in found["builds"]}
    checkouts = {checkout["id"] for checkout in found["checkouts"]}
    assert {test["build_id"] for test in found["tests"]} <= builds
    assert {test["misc"]["outgoing_build_id"] for test in found["tests"]} <= builds
    assert {build["checkout_id"] for build in found["builds"]} == checkouts
    assert {bool(c["misc"]["patches"]): c.get("patchset_hash") for c in found["checkouts"]} == {
        False: "",
        True: None,
    }
    passed = [test["path"] for test in found["tests"] if test["status"] == "PASS"]
    assert len(passed) == sum(len(main.answers) for main in mains) + 2
    assert {ROOT, "kexec_stages.02_vfio_noiommu"} <= set(passed)
    assert tests[f"{ROOT}.control_byte-flipped"]["status"] == "DONE"
    number = tests["kexec_stages.02_vfio_noiommu.figures.blackout_guest_s_TSC"]["number"]
    assert (number["unit"], number["prefix"]) == ("s", "metric")
    assert 0.1 < number["value"] < 60


def test_kcidb_of_a_failure(runs: Path) -> None:
    folder = store_run(
        runs / "failed",
        (KVM_MEMFD / "main", "main"),
        (KVM_MEMFD / "main", "repeat-02"),
        (KVM_MEMFD / "control-byte-flipped", "control-byte-flipped"),
    )
    for suffix in ("jsonl", "log"):
        path = folder / "main" / f"dialogue.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"# finish=0", b"# finish=-16"))
        path = folder / "control-byte-flipped" / f"dialogue.{suffix}"
        path.write_bytes(path.read_bytes().replace(b"pages_different=1", b"pages_different=0"))
    write_record(folder)
    with opened(folder.name) as one:
        tests = by_path(objects(one))
    assert tests[ROOT]["status"] == "FAIL"
    failed = tests[f"{ROOT}.main.session_finished"]
    assert failed["status"] == "FAIL"
    assert "seen finish=-16 (EBUSY)" in failed["log_excerpt"]
    assert tests[f"{ROOT}.repeat-02.session_finished"]["status"] == "PASS"
    assert tests[f"{ROOT}.control_byte-flipped"]["status"] == "ERROR"
    assert tests[f"{ROOT}.repeat-02.figures.pause"]["status"] == "DONE"


def test_kcidb_of_stock_kernels_is_no_pass_and_no_failure(runs: Path) -> None:
    """It has no word for XFAIL."""
    folder = store_run(runs / "stock", (VFIO_NOIOMMU / "stock", "main"), stage=2)
    with opened(folder.name) as one:
        assert one.verdict.status == "XFAIL"
        tests = by_path(objects(one))
    assert tests["kexec_stages.02_vfio_noiommu"]["status"] == "SKIP"
    assert {test["status"] for test in tests.values()} <= {"PASS", "SKIP", "DONE"}


def test_controls_alone_are_no_pass(runs: Path) -> None:
    store_run(runs / "controls", (KVM_MEMFD / "control-panic", "control-panic"))
    with opened("controls") as one:
        assert one.verdict.status == "PASS"
        assert {test["status"] for test in objects(one)["tests"]} == {"DONE"}


def test_every_verdict_of_a_stored_run_has_a_word_in_kcidb() -> None:
    assert _OF_RUN.keys() == {*get_args(RunStatus)} - {"SKIP", "OTHER CODE"}


def test_kcidb_takes_no_other_origin(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", run_folder.name, "--format", "kcidb", "--origin", "My CI"]) == 2
    assert "--origin: 'My CI' must consist of a-z, 0-9 and _" in sentence(capsys)
