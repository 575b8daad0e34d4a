# SPDX-License-Identifier: GPL-2.0-only
"""The host in a report: attempts that it disturbed, and its part in a blackout. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tabulate import tabulate

from common.arch.known import ARCHITECTURES, DEFAULT
from common.host.processes.load import in_words
from common.judge.verdict import ControlVerdict, TrialVerdict, Verdict
from common.record.evidence import Run, Trial
from common.record.setting import Setting

_ORDINALS = ("first", "second", "third")
# Where the outgoing side stops the guest or the reader of the ring, and the incoming one goes on.
_PAUSED = ("await.pause", "t.unread", "await.reboot")
_RESUMED = ("t.resume", "t.adopted", "t.retrieved")


def machine_words(setting: Setting) -> str:
    """Architecture and emulated CPU, of a machine that is not the default one; else empty."""
    arch = ARCHITECTURES[setting.architecture]
    if arch is DEFAULT:
        return ""
    cpu = arch.cpu(setting.cpu_model)
    return f"{arch.title}, {cpu.name}: {cpu.what}"


def load_words(run: Run) -> str:
    """What the harness itself ran beside the trials: "2 controls at once"; "" for nothing."""
    settings = [trial.setting for trial in run.trials]
    load = max((setting.load for setting in settings), default=0)
    jobs = max((setting.jobs for setting in settings), default=1)
    said = [in_words(load)] if load else []
    return ", ".join(said + ([f"{jobs} controls at once"] if jobs > 1 else []))


def attempts(verdict: Verdict) -> Iterator[str]:
    """A sentence for each trial that was disturbed."""
    both: tuple[TrialVerdict | ControlVerdict, ...] = (*verdict.trials, *verdict.controls)
    for one in both:
        if not one.disturbed:
            continue
        told = "; ".join(
            f"the {_ORDINALS[n]} was disturbed: {why}" for n, why in enumerate(one.disturbed)
        )
        yield f"{one.trial}: {len(one.disturbed) + 1} attempts: {told}"


def disturbed_attempts(verdict: Verdict) -> int:
    """How many attempts show nothing; of trials that never were quiet the last one as well."""
    both: tuple[TrialVerdict | ControlVerdict, ...] = (*verdict.trials, *verdict.controls)
    return sum(len(one.disturbed) + (one.status == "DISTURBED") for one in both)


def host_lines(trial: Trial) -> Iterator[str]:
    """The longest absences of a trial, and the host's part in each phase of its blackout."""
    host = trial.host
    if host is None:
        yield "The host was not measured during this trial."
        return
    found = host.longest(host.begin, host.end)
    yield (f"Longest stall: {host.said(found)}." if found else "No stall of 20 ms or more.")
    rest: list[str] = []
    if host.pressure_ms is not None:  # a host without PSI does not say
        rest.append(f"tasks of the host waited for a CPU for {host.pressure_ms:.0f} ms")
    rest += [f"its hypervisor stole {host.steal_ms:.0f} ms"] if host.steal_ms else []
    rest += [f"it was suspended for {host.suspended_ms:.0f} ms"] if host.suspended_ms > 1 else []
    if rest:
        yield f"Of {(host.end - host.begin) / 1e6:.0f} ms: {', '.join(rest)}."


def phase_table(trial: Trial) -> str:
    """For each phase of the blackout: its length, and what of it was the host's; "" without one."""
    host = trial.host
    if host is None:
        return ""
    rows = []
    for name, begin, end in _phases(trial):
        found = host.longest(begin, end)
        absence = f"{found[0]} {(found[2] - found[1]) / 1e6:.0f}" if found else "-"
        waited = host.waited_ms(begin, end, "CPU ")
        rows.append([name, (end - begin) / 1e6, waited, absence])
    headers = ["phase (host's clock)", "ms", "QEMU's CPUs waited", "longest stall"]
    return tabulate(rows, headers=headers, floatfmt=".0f") if rows else ""


def _phases(trial: Trial) -> Iterator[tuple[str, int, int]]:
    """The phases that both clocks of the host know, one after the other: name, begin, end."""
    before, after, console = trial.side("outgoing"), trial.side("incoming"), trial.console
    if before is None or after is None or not console.kexecs or len(console.boots) < 2:
        return
    paused = next((before.stamps[key] for key in _PAUSED if key in before.stamps), before.ended)
    resumed = next((after.stamps[key] for key in _RESUMED if key in after.stamps), after.started)
    points = [
        ("pause to last message", paused),
        ("shutdown", before.ended),
        ("kexec", console.kexecs[0]),
        ("early boot", console.boots[1].t),
        ("userspace to resume", after.started),
        ("", resumed),
    ]
    for (name, begin), (_, end) in pairwise(points):
        if end > begin:
            yield name, begin, end
