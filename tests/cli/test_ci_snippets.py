# SPDX-License-Identifier: GPL-2.0-only
"""The CI snippets in docs/ci are what GitLab and GitHub take, and say what this program takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from common.cli.parser import build_parser
from common.paths import CHECKOUT

SNIPPETS = {
    "gitlab-ci.yml": ("vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
    "github-workflow.yml": ("vendor.github-workflows",),
    "gitlab-matrix.yml": ("vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
    "github-matrix.yml": ("vendor.github-workflows",),
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_follows_its_schema(name: str) -> None:
    """The schemas come with check-jsonschema: no network."""
    schema = ("--builtin-schema", *SNIPPETS[name])
    path = CHECKOUT / "docs" / "ci" / name
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lava_job_follows_lavas_own_schema() -> None:
    """That of Debian's lava-common, which is no dependency of ours: looked for in the system."""
    program = (
        "import sys, yaml\n"
        "from lava_common.schemas import validate\n"
        "validate(yaml.safe_load(open(sys.argv[1])), strict=True)\n"
    )
    python = ["/usr/bin/python3", "-c"]
    if subprocess.run([*python, "import lava_common.schemas"], capture_output=True).returncode:
        pytest.skip("no lava_common here (apt install lava-common)")
    path = str(CHECKOUT / "docs" / "ci" / "lava-job.yml")
    done = subprocess.run([*python, program, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gitlab-ci.yml", 4),
        ("github-workflow.yml", 4),
        ("lava-job.yml", 2),
        ("gitlab-matrix.yml", 3),
        ("github-matrix.yml", 3),
    ],
)
def test_a_snippet_uses_commands_that_there_are(name: str, count: int) -> None:
    text = (CHECKOUT / "docs" / "ci" / name).read_text()
    commands = re.findall(
        r"^[\s#]*(?:- )?(?:for .* do )?(?:plan=\$\()?\S*/kexec-stages"
        r" ((?:gate|report|bundle|matrix).*?)(?:;|\|\||\)$|>|$)",
        text,
        re.M,
    )
    assert len(commands) == count
    for command in commands:
        words = command.replace("$MATRIX", "--kernel linux-source-7.2 --stage 1 --refusal-ok")
        build_parser().parse_args(shlex.split(words))
