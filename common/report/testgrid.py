# SPDX-License-Identifier: GPL-2.0-only
"""Runs as TestGrid reads them: a folder of started.json, finished.json and JUnit files. Pure.

The names and fields are those of TestGrid's metadata package. Of a case it reads what stands in
`failure` and `skipped`, and not in every version what stands in `error`: so each error is a
failure here, of the type that it has in the JUnit report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from common.errors import Exit, UsageError
from common.judge.stored_run import StoredRun
from common.report.junit import junit_suites, junit_text
from common.text import without_home

STARTED = "started.json"
FINISHED = "finished.json"


def report_testgrid(runs: Sequence[StoredRun]) -> Mapping[str, str]:
    """The files of the folder, by their names in it.

    Raises UsageError for runs without any trial: nothing says when they ended.
    """
    trials = [trial.setting for one in runs for trial in one.run.trials]
    if not trials:
        raise UsageError("nothing was run, so there is no end time for TestGrid")
    kernels = dict.fromkeys(f"{t.outgoing.release} to {t.incoming.release}" for t in trials)
    metadata = {
        # what a column of the grid is called
        "job-version": trials[0].incoming.build_id,
        "kernels": "; ".join(kernels),
        "program": "; ".join(dict.fromkeys(f"{o.run.tool}, {o.run.commit}" for o in runs)),
        **{f"seal-{one.name}": one.seal for one in runs},
        **{f"verdict-{one.name}": f"{one.verdict.status}: {one.verdict.why}" for one in runs},
    }
    return {
        STARTED: _json({"timestamp": int(min(one.run.began() for one in runs).timestamp())}),
        FINISHED: _json(
            {
                "timestamp": max(t.ended_ns + t.clock_offset_ns for t in trials) // 10**9,
                "passed": all(one.verdict.exit is Exit.PASS for one in runs),
                "metadata": {name: without_home(text) for name, text in metadata.items()},
            }
        ),
        # junit_CONTEXT.xml: what stands behind another _ would be taken for a time or a thread
        **{f"artifacts/junit_{one.name.replace('_', '-')}.xml": _junit(one) for one in runs},
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _junit(one: StoredRun) -> str:
    suites = junit_suites([one])
    for suite in suites:
        for said in suite.iter("error"):
            said.tag = "failure"
        for said in (*suite.iter("failure"), *suite.iter("skipped")):
            said.text = "\n".join(filter(None, (said.get("message"), said.text)))
        _count(suite)
    _count(suites)
    return junit_text(suites)


def _count(element: ET.Element) -> None:
    element.set("failures", str(sum(1 for _ in element.iter("failure"))))
    element.set("errors", "0")
