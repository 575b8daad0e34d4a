# SPDX-License-Identifier: GPL-2.0-only
"""The matrix: its cells, the job matrices that CI engines take, and the table of what came back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.cli.matrix import cells
from common.cli.parser import build_parser, main
from common.errors import CannotRunHere, Exit, HarnessError, StagesError, UsageError
from common.judge.bundle import pack
from common.paths import CHECKOUT
from common.stage.kernel_choice import Origin
from common.suites.matrix.cells import (
    Cell,
    exit_of,
    plan_text,
    result,
    result_of_error,
    table,
    write_result,
)
from kernel.errors import KernelBuildError
from tests.conftest import sentence
from tests.recorded_trial import KVM_MEMFD, VFIO_NOIOMMU
from tests.stored import store_run

TWO = ["--kernel", "linux-source-7.2", "--kernel", "new=linux-source-7.3"]


def matrix(*words: str) -> tuple[Cell, ...]:
    return cells(build_parser().parse_args(["matrix", *words]))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def test_every_pair_in_both_directions_and_with_itself() -> None:
    found = matrix(*TWO, "--stage", "1")
    assert [cell.name for cell in found] == [
        "stage-1.7.2-to-7.2.main",
        "stage-1.7.2-to-new.main",
        "stage-1.new-to-7.2.main",
        "stage-1.new-to-new.main",
    ]
    assert found[1].choice.origins == (
        Origin("package", "linux-source-7.2"),
        Origin("package", "linux-source-7.3"),
    )


def test_a_suite_is_part_of_the_name() -> None:
    (cell,) = matrix("--kernel", "linux-source-7.2@sid", "--stage", "1")
    assert cell.name == "stage-1.7.2-sid-to-7.2-sid.main"


def test_controls_are_cells_where_their_kernels_can_be_built() -> None:
    ours = {cell.control for cell in matrix("--stage", "2", "--controls")}
    none = {cell.control for cell in matrix("--stage", "2", "--controls", "--series", "none")}
    assert "pin-patch-off" in ours - none
    assert {None, "tail-left"} <= none


def test_a_chain_is_of_the_stages_that_have_one() -> None:
    found = matrix("--stage", "1", "--stage", "2", "--chain", "3")
    assert [(cell.stage, cell.load().config.chain) for cell in found] == [(1, 3), (2, 1)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kernel", "a b=linux-source-7.3"], "cannot name a job"),
        (["--kernel", "a-to-b=linux-source-7.3"], "cannot name a job"),
        (["--kernel", "linux-source-7.3", "--kernel", "linux-source-7.3"], "7.3 already"),
        (["--kernel", "/nowhere"], "not a linux-source-X.Y, kernel tree"),
        (["--stage", "9"], "there is no stage 9"),
    ],
)
def test_what_cannot_be_meant(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        matrix(*words)


def follows(schema: tuple[str, ...], document: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *schema, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_github_takes_the_plan(tmp_path: Path) -> None:
    plan = plan_text(matrix(*TWO, "--stage", "1"), "github")
    assert plan.count("\n") == 1  # for $GITHUB_OUTPUT
    steps = [{"run": "./kexec-stages matrix --cell ${{ matrix.cell }}"}]
    job = {"runs-on": "ubuntu-latest", "strategy": {"matrix": json.loads(plan)}, "steps": steps}
    path = tmp_path / "workflow.yml"
    follows(("vendor.github-workflows",), {"on": "push", "jobs": {"cells": job}}, path)


def test_gitlab_takes_the_plan(tmp_path: Path) -> None:
    plan = json.loads(plan_text(matrix(*TWO, "--stage", "1"), "gitlab"))
    job = {"extends": ".cells", "script": ['./kexec-stages matrix --cell "$CELL"']}
    schema = ("vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    follows(schema, {**plan, "cell": job}, tmp_path / "child.yml")


def test_more_jobs_than_an_engine_takes_are_refused() -> None:
    many = matrix(*TWO, "--stage", "1") * 60
    with pytest.raises(UsageError, match="240 cells, and gitlab takes 200 jobs"):
        plan_text(many, "gitlab")
    assert json.loads(plan_text(many, "github"))


def leave(results: Path, cell: Cell, run: Path) -> None:
    (results / f"{cell.name}.zip").write_bytes(pack(run))
    write_result(results, cell, {"status": "FAIL", "why": "what a job says is not believed"})


def test_the_table_is_made_of_the_bundles(results: Path, runs: Path) -> None:
    first, second, third, fourth = matrix(*TWO, "--stage", "1")
    leave(results, first, store_run(runs / "a", (KVM_MEMFD / "main", "main")))
    name = "control-byte-flipped"
    broken = store_run(runs / "b", (KVM_MEMFD / name, name))
    control = matrix(*TWO, "--stage", "1", "--controls")[2]
    assert control.control == "byte-flipped"
    leave(results, control, broken)
    write_result(results, second, {"status": "NO KERNEL", "why": "it did not build"})
    write_result(results, third, {"status": "PASS", "why": "says the job alone"})
    found = [result([results], c.name) for c in (first, second, third, fourth, control)]
    assert [one.status for one in found] == ["PASS", "NO KERNEL", "NO RESULT", "NO RESULT", "PASS"]
    text = table(found)
    row = next(line for line in text.splitlines() if "7.2 to 7.2" in line)
    assert "PASS" in row and "ms" in row and "1/1 failed as expected" in row
    assert "stage-1.7.2-to-new.main: NO KERNEL: it did not build" in text
    assert "PASS, but there is no bundle to show it" in text
    assert "no job brought anything back" in text


def test_an_edited_bundle_is_no_result(results: Path, runs: Path) -> None:
    cell = matrix("--stage", "1")[0]
    leave(results, cell, store_run(runs / "a", (KVM_MEMFD / "main", "main")))
    path = results / f"{cell.name}.zip"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    one = result([results], cell.name)
    assert one.status == "NO RESULT"
    assert "was edited or is damaged" in one.why


def test_an_expected_failure_passes_and_a_missing_one_does_not(results: Path, runs: Path) -> None:
    cell = matrix("--stage", "2", "--series", "none")[0]
    leave(results, cell, store_run(runs / "a", (VFIO_NOIOMMU / "stock", "main"), stage=2))
    one = result([results], cell.name)
    assert (one.status, exit_of([one], refusal_ok=False)) == ("XFAIL", Exit.PASS)
    assert exit_of([one, result([results], "nothing")], refusal_ok=False) == Exit.HARNESS
    assert exit_of([], refusal_ok=False) == Exit.HARNESS


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KernelBuildError("no"), "NO KERNEL"),
        (CannotRunHere("no"), "SKIP"),
        (HarnessError("no"), "ERROR"),
    ],
)
def test_what_came_to_no_run_says_why(results: Path, error: StagesError, status: str) -> None:
    cell = matrix("--stage", "1")[0]
    write_result(results, cell, result_of_error(error))
    one = result([results], cell.name)
    assert (one.status, one.why) == (status, "no")
    assert exit_of([one], refusal_ok=True) == error.exit_status


def test_collect_tells_of_cells_that_nobody_brought(
    results: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = matrix("--stage", "1")[0]
    leave(results, cell, store_run(runs / "a", (KVM_MEMFD / "main", "main")))
    assert main(["matrix", "--collect", str(results)]) == Exit.PASS
    assert "7.3 to 7.3" in capsys.readouterr().out
    assert main(["matrix", "--collect", str(results), "--stage", "1", *TWO]) == Exit.HARNESS
    assert "NO RESULT" in capsys.readouterr().out


def test_a_cell_that_there_is_not(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--stage", "1", "--cell", "nonsense"]) == Exit.USAGE
    assert "this matrix has no cell nonsense; --plan lists those it has" in sentence(capsys)
    assert not list(runs.iterdir())


def test_planning_and_collecting_need_no_libvirt(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['libvirt'] = None\n"
        "from common.cli.parser import main\n"
        f"main(['matrix', '--plan', 'github']); main(['matrix', '--collect', {str(tmp_path)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "cell" in done.stdout) == (0, True), done.stderr
