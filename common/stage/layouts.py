# SPDX-License-Identifier: GPL-2.0-only
"""Where kernels were in memory: how many different layouts a run has tried.

Each kernel chooses its address anew (KASLR; arch/x86/boot/compressed/kaslr.c:
choose_random_location), an incoming one within KHO's scratch memory (process_kho_entries). What
overlaps in one layout need not overlap in another, so one passed trial says little about the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.errors import UsageError
from common.record.evidence import Trial
from common.stage.declaration import Stage

_TEXT, _SCRATCH = "kernel.text", "kho.scratch"
_NAMED = 8


def layouts_asked(number: int | None, stage: Stage, words: Sequence[str]) -> int | None:
    """The number; raises UsageError where the kernels are told to stay where they are."""
    if number is not None and "nokaslr" in (*stage.cmdline, *words):
        raise UsageError(f"--layouts {number}: nokaslr leaves a kernel only one address")
    return number


def layout(trial: Trial) -> tuple[str, ...] | None:
    """Where each kernel's text begins, and the scratch areas; None where one did not tell."""
    texts = [side.facts.get(_TEXT, "") for side in trial.sides]
    if len(texts) < 2 or not all(text.startswith("0x") for text in texts):
        return None
    places = [text.partition("-")[0] for text in texts]
    return (*places, trial.sides[0].facts.get(_SCRATCH, ""))


def tried(trials: Iterable[Trial]) -> str:
    """What a report says: how many different ones of how many main trials, and which."""
    mains = [trial for trial in trials if trial.setting.control is None]
    found = [layout(trial) for trial in mains]
    known = sorted({one for one in found if one})
    if not known:
        return "unknown: no kernel reported its address"
    places = ", ".join(" to ".join(one[:-1]) for one in known[:_NAMED])
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"{len(known)} different in {len(mains)} main trials: text at {places}{more}"
