# SPDX-License-Identifier: GPL-2.0-only
"""Each promise of the suite with what would show that it is broken: docs/promises.md.

A promise is a claim of a stage. Its checks ask whether it was kept in a trial; its controls break
it and are seen to; its mutants break it, say nothing of it, and are noticed by that check
(`test --mutants`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.checks.model import Check
from common.stage.declaration import Stage
from common.stage.loading import all_stages
from common.suites.mutants import Mutant, mutants

_HEAD = """<!-- SPDX-License-Identifier: GPL-2.0-only -->
<!-- Made by `./kexec-stages list --promises`; a test compares. -->
# Promises, and what has broken them

Each claim of each stage with the checks behind it, the controls that must fail that check in
every `demo`, and the mutants (patches in `tests/mutants` that break the claim and report success)
that the check must notice in `./kexec-stages test --mutants`. An empty cell (—) means that nothing
of that kind has been tried: a check without a mutant is only as good as its controls.
"""


def promises() -> str:
    """The page, as Markdown."""
    known = mutants()
    stages = [_stage(stage, [m for m in known if _is_of(m, stage)]) for stage in all_stages()]
    return "\n".join([_HEAD, _untried(known), *stages])


def _is_of(mutant: Mutant, stage: Stage) -> bool:
    return (mutant.stage, mutant.workload) == (stage.number, stage.workload)


def _untried(known: Sequence[Mutant]) -> str:
    checks = [(stage, check) for stage in all_stages() for check in stage.checks]
    without = sum(not _noticed(check, known, stage) for stage, check in checks)
    return (
        f"{len(known)} mutants; {len(checks) - without} of {len(checks)} checks have noticed one.\n"
    )


def _noticed(check: Check, known: Iterable[Mutant], stage: Stage) -> list[str]:
    return [m.name for m in known if m.caught_by == check.name and _is_of(m, stage)]


def _stage(stage: Stage, known: Sequence[Mutant]) -> str:
    lines = [f"## Stage {stage.number}: {stage.title}\n"]
    for number, claim in enumerate(stage.claims, start=1):
        lines += [
            f"{number}. {claim.text}\n",
            "   | check | controls | mutants |",
            "   |---|---|---|",
        ]
        lines += [f"   | {' | '.join(_row(check, stage, known))} |" for check in claim.checks]
        lines.append("")
    elsewhere = [f"`{m.name}` ({m.catcher}: {m.kind})" for m in known if m.caught_by is None]
    if elsewhere:
        lines.append(f"Noticed by no check but refused by the judge: {', '.join(elsewhere)}.\n")
    return "\n".join(lines)


def _row(check: Check, stage: Stage, known: Sequence[Mutant]) -> tuple[str, str, str]:
    controls = [control.name for control in stage.controls if check.name in control.breaks]
    noticed = _noticed(check, known, stage)
    return (
        f"`{check.name}`: {check.question}",
        ", ".join(controls) or "—",
        ", ".join(noticed) or "—",
    )
