# SPDX-License-Identifier: GPL-2.0-only
"""Several updates in one machine in succession: A to B, B to A, and so on.

In a chain the kernel that came by one kexec is the one that the next leaves. Its workload speaks
twice: as the incoming side of one update, then as the outgoing side of the next. So a chain of N
is N updates that look like any other, and every check of a stage is asked of each of them, in a
*view* of the trial that holds nothing else. What is said of the chain as a whole is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from common.checks.live_update import OUTGOING, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.errors import UsageError
from common.record.cpus.samples import Sample
from common.record.evidence import Trial
from common.stage.declaration import Size, Stage

_SCRATCH = "kho_scratch=16M,64M,16M"
_MIB_EACH = 10
"""For the kernels and initramfs that are still to come, which each one carries with it: what a
kexec loads lies in KHO's scratch memory, and once more in the running kernel's own."""

T = TypeVar("T")


def with_chain(stage: Stage, updates: int) -> Stage:
    """The stage with so many updates in each main run. Raises UsageError where it has but one."""
    if updates == 1:
        return stage
    if not stage.chain_controls:
        raise UsageError(f"stage {stage.number} goes through one update: it has no --chain")
    more = _MIB_EACH * (updates - 1)
    words = {_SCRATCH: f"kho_scratch=16M,{64 + more}M,16M"}

    def size(options: Mapping[str, int]) -> Size:
        plain = stage.size(options)
        return Size(plain.machine_mib + 3 * more, f"{plain.sum} + {updates} updates {3 * more} MiB")

    return replace(
        stage,
        config=replace(stage.config, chain=updates),
        claims=(*stage.claims, CLAIM),
        controls=(*stage.controls, *stage.chain_controls),
        cmdline=tuple(words.get(word, word) for word in stage.cmdline),
        size=size,
    )


def ask(check: Check, trial: Trial) -> Outcome:
    """The check's answer; in a chain the first update's that is not PASS, else the last one's."""
    if trial.setting.chain == 1 or check.of_chain:
        return _asked(check, trial)
    answers = [_asked(check, view) for view in updates(trial)]
    number, answer = next(
        ((n, a) for n, a in enumerate(answers, start=1) if a.status != "PASS"),
        (len(answers), answers[-1]),
    )
    return answer.model_copy(update={"seen": f"update {number}: {answer.seen}"})


def _asked(check: Check, trial: Trial) -> Outcome:
    """A check that cannot read what a workload said has no data; that is never a pass."""
    try:
        return check.ask(trial)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        return no_data(f"{check.name} cannot read it: {type(error).__name__}: {error}")


def updates(trial: Trial) -> tuple[Trial, ...]:
    """One view for each update that there should be; what a machine did beyond is in the last."""
    number = trial.setting.chain
    if number == 1:
        return (trial,)
    return tuple(_view(trial, index, last=index == number - 1) for index in range(number))


def _view(trial: Trial, index: int, *, last: bool) -> Trial:
    setting, console = trial.setting, trial.console
    if index % 2:
        turned = {"outgoing": setting.incoming, "incoming": setting.outgoing}
        setting = setting.model_copy(update=turned)

    def part(found: Sequence[T], each: int = 1, size: int = 1) -> tuple[T, ...]:
        return tuple(found[index * each : None if last else index * each + size])

    seen = {
        "boots": part(console.boots, size=2),
        "kexecs": part(console.kexecs),
        "kexec_lines": part(console.kexec_lines),
        "handovers": part(console.handovers),
        "luo_numbers": part(console.luo_numbers),
    }
    return trial.model_copy(
        update={
            "update": index + 1,
            "setting": setting,
            "console": console.model_copy(update=seen),
            "sides": part(trial.sides, 2, 2),
            "witness": trial.witness.of_update(index),
            "tb_invalidations": part(trial.tb_invalidations),
            "samples": _samples(trial, index, last=last),
        }
    )


def _samples(trial: Trial, index: int, *, last: bool) -> tuple[Sample, ...]:
    """Those from the update's first word to the next one's."""
    begins = [side.started for side in trial.sides[::2]]
    if len(begins) <= index:
        return ()
    end = None if last or len(begins) <= index + 1 else begins[index + 1]
    return tuple(s for s in trial.samples if begins[index] <= s.t and (end is None or s.t < end))


def _counts(trial: Trial) -> Outcome:
    wanted = list(range(1, trial.setting.chain + 1))
    kho = [handover.count for handover in trial.console.handovers]
    luo = list(trial.console.luo_numbers)
    expected = f"KHO and LUO count {_listed(wanted)}"
    if not kho and not luo:
        return no_data("neither KHO nor LUO on the console", expected=expected)
    return outcome(
        kho == luo == wanted,
        expected=expected,
        seen=f"KHO counts {_listed(kho)}; LUO {_listed(luo)}",
        evidence="console.log",
    )


def _alive(trial: Trial) -> Outcome:
    """The guest's own counter at each pause and each load, and its steps until each kexec."""
    keys = {"outgoing": "guest.0.counter", "incoming": "guest.0.counter_at_load"}
    seen = [side.number(keys.get(side.name, "")) for side in trial.sides]
    steps = [side.number("load.guest_steps") for side in trial.sides if side.name == OUTGOING]
    expected = "steps in each kernel; the same at pause and load, more at the next pause"
    if len(seen) != 2 * trial.setting.chain or None in [*seen, *steps]:
        return no_data(f"facts {', '.join(keys.values())}, load.guest_steps", expected=expected)
    counters = [number or 0 for number in seen]
    carried = counters[0::2] == counters[1::2]
    went_on = all(a < b for a, b in zip(counters[1::2], counters[2::2], strict=False))
    return outcome(
        carried and went_on and all(steps),
        expected=expected,
        seen=f"paused at {_listed(counters[0::2])}; loaded at {_listed(counters[1::2])};"
        f" {_listed(steps)} steps while the next kernel was loaded",
        evidence=f"facts {', '.join(keys.values())}, load.guest_steps",
    )


def _listed(numbers: Sequence[int | None]) -> str:
    return ", ".join(map(str, numbers))


CLAIM = Claim(
    "each update of the chain is counted",
    "The machine goes through one update after the other, each counted, and its guest lives on"
    " from the first kernel to the last.",
    (
        Check("chain_counts", "Do KHO and LUO count every update?", _counts, of_chain=True),
        Check(
            "chain_alive", "Does the guest's counter advance in each kernel?", _alive, of_chain=True
        ),
    ),
)
