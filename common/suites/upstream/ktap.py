# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel's own live update tests have shown, as KTAP. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import StagesError
from common.report.ktap import one_line
from common.suites.upstream.result import UpstreamResult

_RESULT = {
    "PASS": "ok {} {}",
    "SKIP": "ok {} {} # SKIP {}",
    "FAIL": "not ok {} {}",
    "CRASHED": "not ok {} {}",
    "TIMEOUT": "not ok {} {} # TIMEOUT {}",
}


def suite_result(position: int, suite: str, results: Sequence[UpstreamResult] | StagesError) -> str:
    """A suite of the kernel's own tests as a KTAP subtest, with what each test said.

    A suite that could not be run is a SKIP with the reason; it has no subtest then.
    """
    if isinstance(results, StagesError):
        told = [f"# {one_line(detail)}\n" for detail in results.details]
        return "".join([*told, f"ok {position} {suite} # SKIP {one_line(str(results))}\n"])
    lines = ["KTAP version 1", f"# Subtest: {suite}", f"1..{len(results)}"]
    for number, one in enumerate(results, start=1):
        lines += [f"# {one.test.name}: {one_line(text.lstrip('# '))}" for text in one.said]
        lines += [f"# seen: {one_line(one.why)}"]
        lines += [_RESULT[one.status].format(number, one.test.name, one_line(one.why))]
    statuses = {one.status for one in results}
    word = "not ok" if statuses - {"PASS", "SKIP"} else "ok"
    skipped = sum(one.status == "SKIP" for one in results)
    note = f" # SKIP {skipped} of {len(results)} tests" if skipped and word == "ok" else ""
    return "".join(f"  {line}\n" for line in lines) + f"{word} {position} {suite}{note}\n"
