# SPDX-License-Identifier: GPL-2.0-only
"""Runs with their verdicts as JSON, after a published schema (docs/report.schema.json). Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from common import __version__
from common.judge.stored_run import StoredRun
from common.judge.verdict import Verdict
from common.record.dialogue import Stored
from common.record.evidence import Run

SCHEMA = 2
"""Raised when what is there changes its meaning or goes; new keys alone do not raise it."""


class ReportedRun(Stored):
    """A run: its verdict, the length of its phases, and the record from which both follow."""

    id: str
    seal: str
    """SHA-256 of the run's SHA256SUMS."""
    title: str
    verdict: Verdict
    phases: dict[str, dict[str, float]]
    """Milliseconds of each phase, for each trial by its name."""
    not_claimed: tuple[str, ...]
    record: Run


class Report(Stored):
    """What `report --format json` prints."""

    schema_version: int = SCHEMA
    tool: str
    runs: tuple[ReportedRun, ...]


def report_json(runs: Sequence[StoredRun]) -> str:
    """The report as JSON text."""
    report = Report(
        tool=f"kexec-stages {__version__}",
        runs=tuple(
            ReportedRun(
                id=stored.name,
                seal=stored.seal,
                title=stored.stage.title,
                verdict=stored.verdict,
                phases={t.setting.name: stored.stage.phases(t) for t in stored.run.trials},
                not_claimed=stored.stage.not_claimed,
                record=stored.run,
            )
            for stored in runs
        ),
    )
    return report.model_dump_json(indent=2) + "\n"


def schema_text() -> str:
    """The published JSON Schema of it."""
    return json.dumps(Report.model_json_schema(), indent=2, sort_keys=True) + "\n"
