# SPDX-License-Identifier: GPL-2.0-only
"""A stage with one prebuilt image on both sides: what cannot be checked then, and what is.

Release and build id tell two kernels apart, not two starts of one. That it was started anew by
kexec is then said by KHO's line and count, the boot id, and the order of the console alone.
"""

from __future__ import annotations

from dataclasses import replace

from common.checks.live_update import INCOMING, OUTGOING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.record.evidence import Trial
from common.stage.declaration import Stage

_TOLD_APART = frozenset({"other_kernel", "build_ids"})


def _same_build(trial: Trial) -> Outcome:
    sides = [trial.side(name) for name in (OUTGOING, INCOMING)]
    seen = [side.facts.get("kernel.build_id") if side else None for side in sides]
    given = trial.setting.incoming.build_id
    if None in seen:
        return no_data("fact kernel.build_id on both sides", expected=given[:12])
    return outcome(
        seen == [given, given] and given == trial.setting.outgoing.build_id,
        expected=f"{given[:12]} on both sides",
        seen=" and ".join(text[:12] for text in seen if text),
        evidence="/sys/kernel/notes on both sides, against the image's build id",
    )


_SAME_BUILD = Check("one_build", "Is the running kernel the image both times?", _same_build)


def with_one_image(stage: Stage) -> Stage:
    """The stage with the checks that tell two kernels apart replaced, and that said."""
    claims = tuple(_without(claim) for claim in stage.claims)
    controls = tuple(c for c in stage.controls if not c.breaks & _TOLD_APART or c.may_break is None)
    return replace(
        stage,
        config=replace(stage.config, one_kernel=True),
        claims=(replace(claims[0], checks=(*claims[0].checks, _SAME_BUILD)), *claims[1:]),
        controls=tuple(replace(c, breaks=c.breaks - _TOLD_APART) for c in controls),
        not_claimed=(
            "Both sides are one image: that the kernel was started anew is shown by KHO's line, the"
            " boot id and the console alone, not by another release or build id.",
            *stage.not_claimed,
        ),
    )


def _without(claim: Claim) -> Claim:
    return replace(claim, checks=tuple(c for c in claim.checks if c.name not in _TOLD_APART))
