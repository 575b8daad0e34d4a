# SPDX-License-Identifier: GPL-2.0-only
"""A stage on another architecture than the one it is declared for.

What does not apply there is left out, and told: it stands, with its reason, among what the stage
does not claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from common.arch.architecture import Architecture
from common.arch.known import DEFAULT
from common.checks.model import Claim, Control
from common.errors import CannotRunHere, UsageError
from common.stage.declaration import Elsewhere, Stage


def not_there(stage: Stage, arch: Architecture) -> str | None:
    """Why the stage is not there on that architecture; None where it is."""
    there = stage.elsewhere.get(arch.name, "it has not been ported yet")
    if arch is DEFAULT or not isinstance(there, str):
        return None
    return f"stage {stage.label} does not run on {arch.title}: {there}"


def on_architecture(stage: Stage, arch: Architecture) -> Stage:
    """The stage as it is run and judged there.

    Raises CannotRunHere with the reason where it is not there, UsageError for a lane that is not.
    """
    if arch is DEFAULT:
        return stage
    if why := not_there(stage, arch):
        raise CannotRunHere(why)
    there = stage.elsewhere[arch.name]
    assert isinstance(there, Elsewhere)
    if stage.config.lane != "default":
        raise UsageError(f"the {stage.config.lane} lane works only on {DEFAULT.title}")
    return replace(
        stage,
        arch=arch,
        claims=tuple(_claim(claim, there) for claim in stage.claims),
        controls=tuple(_controls(stage.controls, there)),
        chain_controls=tuple(_controls(stage.chain_controls, there)),
        not_claimed=(*stage.not_claimed, *_told(there, arch)),
    )


def _told(there: Elsewhere, arch: Architecture) -> list[str]:
    return [f"Not on {arch.title}: {name}, because {why}." for name, why in there.not_there.items()]


def _claim(claim: Claim, there: Elsewhere) -> Claim:
    checks = tuple(
        there.checks.get(check.name, check)
        for check in claim.checks
        if check.name not in there.not_there
    )
    return replace(claim, checks=checks)


def _controls(controls: Iterable[Control], there: Elsewhere) -> Iterable[Control]:
    """Those that apply; none breaks a check that is not asked there."""
    renamed = {name: check.name for name, check in there.checks.items()}

    def names(found: frozenset[str]) -> frozenset[str]:
        return frozenset(renamed.get(n, n) for n in found if n not in there.not_there)

    for declared in controls:
        if declared.name not in there.not_there:
            control = there.controls.get(declared.name, declared)
            yield replace(
                control,
                breaks=names(control.breaks),
                may_break=None if control.may_break is None else names(control.may_break),
            )
