# SPDX-License-Identifier: GPL-2.0-only
"""What other people's trees do, claim by claim, as a dated page: docs/upstream-state.md. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.checks.promise import PROMISES
from common.judge.stored_run import StoredRun
from common.judge.verdict import Answer, TrialVerdict
from common.record.setting import KernelFacts, Setting

_HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Made by `./kexec-stages report RUN… --format state --about docs/upstream-about.md`. -->
"""
_MOST = 160
"""So many characters of what was seen have room in a table."""


def report_state(runs: Sequence[StoredRun], about: str) -> str:
    """The page: what `about` says, then each run's claims with who promises them."""
    lines = [_HEAD, about.strip(), "", "## Who promises what", ""]
    lines += ["| promise | where it is made |", "|---|---|"]
    lines += [f"| {one.whose} | {_cell(one.source)} |" for one in PROMISES]
    for one in runs:
        lines += ["", *_run(one)]
    return "\n".join(lines) + "\n"


def _run(one: StoredRun) -> Iterator[str]:
    run, verdict = one.run, one.verdict
    trial = verdict.trials[0] if verdict.trials else None
    setting = run.trials[0].setting
    yield f"## Stage {run.stage}, {setting.workload}: {verdict.status}"
    yield ""
    made = f"{run.started[:10]}, commit {run.commit}, series {_series(setting)}"
    yield f"{made}. {_cell(verdict.why)}."
    yield ""
    yield f"- from {_kernel(setting.outgoing)}"
    yield f"- to {_kernel(setting.incoming)}"
    yield f"- {setting.host.accelerator}, {_tools(setting)}; seal {one.seal}"
    if trial is None:
        return
    yield from ("", *_counts(trial), "", "| check | whose | found | seen |", "|---|---|---|---|")
    for answer in trial.answers:
        yield _row(answer, _usual_cause(trial))


def _series(setting: Setting) -> str:
    return setting.series if setting.series in ("ours", "none") else "of patches"


def _kernel(kernel: KernelFacts) -> str:
    """Without its path: that is of one machine."""
    offers = ", ".join(kernel.offers or ()) or "nothing"
    return f"{kernel.release}, build id {kernel.build_id[:12]}; its image names {offers}"


def _tools(setting: Setting) -> str:
    return ", ".join(f"{name} {version}" for name, version in setting.host.versions.items())


def _counts(trial: TrialVerdict) -> Iterator[str]:
    found = [answer.outcome.status for answer in trial.answers]
    parts = [f"{found.count(status)} {status}" for status in dict.fromkeys(found)]
    yield f"{len(found)} checks: {', '.join(parts)}."
    if cause := _usual_cause(trial):
        yield f"XFAIL where no other cause is given, as the host's witness saw it: {_cell(cause)}."


def _usual_cause(trial: TrialVerdict) -> str | None:
    causes = [answer.cause for answer in trial.answers if answer.cause]
    return max(causes, key=causes.count, default=None)


def _row(answer: Answer, usual: str | None) -> str:
    outcome = answer.outcome
    seen = outcome.seen if len(outcome.seen) <= _MOST else f"{outcome.seen[: _MOST - 1]}…"
    if answer.cause and answer.cause != usual:
        seen += f" (cause: {answer.cause})"
    return f"| `{answer.check}` | {answer.whose} | {outcome.status} | {_cell(seen)} |"


def _cell(text: str) -> str:
    """Text on one line that ends no cell and begins no markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
