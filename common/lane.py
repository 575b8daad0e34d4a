# SPDX-License-Identifier: GPL-2.0-only
"""The debug lane: the same stage on kernels that look for their own mistakes.

KASAN, lockdep, DEBUG_VM, kmemleak and page poisoning make a kernel some ten times slower and
larger, so that every bound is ten times as long, and frames come at a lower rate. What they
find is on the console, where `no_splat` looks for it; kmemleak is asked on each side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from common.checks import INCOMING, OUTGOING, no_data, outcome
from common.errors import UsageError
from common.paths import CHECKOUT
from common.record import Trial
from common.stage import Check, Claim, Outcome, Size, Stage

Lane = Literal["default", "debug"]
LANES: tuple[Lane, ...] = ("default", "debug")

_PATIENCE = 10
_MEMORY_MIB = 1536
_FRAGMENT = CHECKOUT / "kernel" / "configs" / "debug.config"
_CMDLINE = (
    # KASAN's shadow, an eighth of all memory, comes from the scratch area in the incoming kernel.
    "kho_scratch=32M,640M,32M",
    "page_poison=1",
    "kasan_multi_shot",
    # Without checks of its own SLUB keeps pointers to what it has given away in each CPU's sheaf,
    # and kmemleak takes them for references: it did not see a leak of some twenty objects.
    "slab_debug=F",
)


def _no_leak(trial: Trial) -> Outcome:
    sides = [trial.side(name) for name in (OUTGOING, INCOMING)]
    found = [side.number("kmemleak.objects") if side else None for side in sides]
    if None in found:
        return no_data("fact kmemleak.objects on both sides", expected="0 and 0")
    first = [side.facts.get("kmemleak.first", "") for side in sides if side]
    return outcome(
        found == [0, 0],
        expected="0 and 0 unreferenced objects",
        seen=f"{found[0]} and {found[1]} {' '.join(first)}".rstrip(),
        evidence="facts kmemleak.*, console.log",
    )


def _kasan_ran(trial: Trial) -> Outcome:
    texts = [side.facts.get("kernel.debug", "") for side in trial.sides]
    return outcome(
        len(texts) == 2 and all(text == "kasan lockdep kmemleak" for text in texts),
        expected="kasan lockdep kmemleak, on both sides",
        seen="; ".join(texts) or "nothing",
        evidence="fact kernel.debug",
    )


CLAIM = Claim(
    "Both kernels, looking for their own mistakes, find none.",
    (
        Check("debug_kernels", "Were KASAN, lockdep and kmemleak at work?", _kasan_ran),
        Check("no_leak", "Does kmemleak find nothing?", _no_leak),
    ),
)


def in_lane(stage: Stage, lane: Lane) -> Stage:
    """The stage as it is run and judged in that lane.

    Raises UsageError for a workload that the debug lane does not have.
    """
    if lane == "default":
        return stage
    if stage.workload != "vmm":
        raise UsageError(
            f"the debug lane has no --workload {stage.workload}: a Linux guest on an emulated CPU"
            " under KASAN is too slow to be waited for"
        )

    def size(options: Mapping[str, int]) -> Size:
        plain = stage.size({**options, "patience": _PATIENCE})
        words = f"{plain.sum} + debug {_MEMORY_MIB} MiB"
        return Size(plain.machine_mib + _MEMORY_MIB, words)

    kept = tuple(word for word in stage.cmdline if not word.startswith("kho_scratch="))
    return replace(
        stage,
        lane=lane,
        patience=_PATIENCE,
        claims=(*stage.claims, CLAIM),
        controls=tuple(c for c in stage.controls if c.name in stage.debug_controls),
        options=tuple(
            replace(option, default=stage.debug_options.get(option.parameter, option.default))
            for option in stage.options
        ),
        cmdline=(*kept, *_CMDLINE, f"stage.patience={_PATIENCE}"),
        size=size,
        extra_fragments=(_FRAGMENT,),
    )
