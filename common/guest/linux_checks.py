# SPDX-License-Identifier: GPL-2.0-only
"""Questions about QEMU and its Linux guest, for every stage that has them.

Pure functions of a Trial, on what common/guest/lines.py found.
"""

from __future__ import annotations

from collections.abc import Callable

from common.checks.live_update import INCOMING, OUTGOING, disturbed, no_data, outcome
from common.checks.model import Check, Claim, Outcome
from common.guest.evidence import Beat, QemuSeen, guest_of, qemu_of
from common.guest.lines import TRANSCRIPT
from common.record.evidence import Trial
from common.record.timing import host_ms

_GUEST = "guest.jsonl"
_STAMP_NS = 10_000_000
_LATE_MS = 500.0
_LATE_PART = 0.02


def ran_between(begin: str, end: str, when: str) -> Callable[[Trial], Outcome]:
    """Beats of the guest between two stamps of the outgoing side, which QEMU was told to save."""

    def ask(trial: Trial) -> Outcome:
        side, saved = trial.side(OUTGOING), qemu_of(trial, OUTGOING).commands.get("migrate")
        first, last = (side.stamps.get(key) if side else None for key in (begin, end))
        if first is None or last is None:
            return no_data(f"stamps {begin}, {end}", expected="beats of the guest")
        beats = sum(first < t < last for t in guest_of(trial).beat_times)
        return outcome(
            beats >= 3 and saved is not None,
            expected=f"at least 3 beats of the guest {when}",
            seen=f"{beats} beats",
            evidence=f"{_GUEST}, stamps {begin}, {end}",
        )

    return ask


def qemu_said(side: str, *names: str) -> Callable[[Trial], Outcome]:
    """That side's QEMU said all of it, and nothing that it was told to do failed."""

    def ask(trial: Trial) -> Outcome:
        said = qemu_of(trial, side)
        expected = f"{' and '.join(names)}, and no failure"
        if said == QemuSeen():
            return no_data(f"{TRANSCRIPT} has nothing of the {side} QEMU", expected=expected)
        failed = [f"{what}: {why}" for what, why in said.failed.items()]
        failed += [f"no {name}" for name in names if name not in said.events]
        return outcome(
            not failed, expected=expected, seen="; ".join(failed) or expected, evidence=TRANSCRIPT
        )

    return ask


def same_qemu(trial: Trial) -> Outcome:
    """Both say the same version, and it is that of the program that was packed."""
    versions = [qemu_of(trial, side).version for side in (OUTGOING, INCOMING)]
    inner = trial.setting.inner_qemu
    # Runs of before it was recorded had the host's own.
    packed = inner.version if inner else trial.setting.host.versions.get("qemu", "?")
    if None in versions:
        return no_data(f"{TRANSCRIPT}: a greeting of both", expected=packed)
    seen = [".".join(str(v[part]) for part in ("major", "minor", "micro")) for v in versions if v]
    return outcome(
        seen == [packed, packed],
        expected=f"{packed}, as packed",
        seen=" and ".join(seen),
        evidence=TRANSCRIPT,
    )


def pause_between_beats(trial: Trial) -> float | None:
    """From the last beat before the resume to the first after it, by the host's clock, in ms."""
    before, after = guest_of(trial).before, guest_of(trial).after
    return host_ms(before.t, after.t) if before and after else None


def _all(*beats: Beat | None) -> list[Beat] | None:
    """The beats, None where one of them is missing."""
    found = [beat for beat in beats if beat]
    return found if len(found) == len(beats) else None


def same_boot(trial: Trial) -> Outcome:
    guest = guest_of(trial)
    beats, hellos = _all(guest.before, guest.last), guest.hellos
    if beats is None:
        return no_data("beats before and after the resume", expected="one boot_id")
    seen = [one.values.get("boot_id", "?")[:8] for one in beats]
    return outcome(
        seen[0] == seen[1] and len(hellos) == 1,
        expected=f"{seen[0]} and {seen[0]}, started once",
        seen=f"{seen[0]} and {seen[1]}, started {len(hellos)} times",
        evidence=f"{_GUEST}, boot_id",
    )


def _same_processes(trial: Trial) -> Outcome:
    """pid and start time of each, read in the guest's /proc; a dead one has start time 0."""
    beats = _all(guest_of(trial).before, guest_of(trial).last)
    if beats is None:
        return no_data("beats before and after the resume", expected="the same processes")
    before, last = (one.ending(".process") for one in beats)
    other = [key.partition(".")[0] for key in before if before[key] != last.get(key)]
    dead = [key.partition(".")[0] for key in last if last[key].endswith(":0")]
    wrong = [*(f"{name} is another" for name in other), *(f"{name} is dead" for name in dead)]
    return outcome(
        not wrong and len(before) >= 5,
        expected=f"the same {len(before)} processes, alive",
        seen=", ".join(wrong) or f"the same {len(before)} processes, alive",
        evidence=f"{_GUEST}, pid and start time",
    )


def _counts_go_on(trial: Trial) -> Outcome:
    """No stamper's count goes back, stands still, or leaps: it sleeps 10 ms before each step."""
    guest = guest_of(trial)
    beats = _all(guest.before, guest.after, guest.last)
    if beats is None:
        return no_data("beats before and after the resume", expected="counts that continue")
    counts = [{key: int(value) for key, value in one.ending(".count").items()} for one in beats]
    wrong = [key for key in guest.went_back if key.endswith(".count")]
    most = (beats[2].exact("mono_ns") - beats[0].exact("mono_ns")) // _STAMP_NS + 2
    for key, before in counts[0].items():
        after, last = counts[1].get(key, -1), counts[2].get(key, -1)
        if not before <= after < last <= before + most:
            wrong.append(key)
    vcpus = int(trial.setting.options["vcpus"])
    key = "stamper0.count"
    return outcome(
        not wrong and len(counts[0]) == vcpus,
        expected=f"{vcpus} counts that advance by at most {most}",
        seen=f"{counts[0].get(key)}, then {counts[1].get(key)}, in the end {counts[2].get(key)}"
        + (f"; wrong: {', '.join(sorted(set(wrong)))}" if wrong else ""),
        evidence=f"{_GUEST}, stamperN.count",
    )


def _no_faults(
    process: str, work: str, at_least: Callable[[Beat], int]
) -> Callable[[Trial], Outcome]:
    """The process found no fault, and did at least so much `work` after the resume."""

    def ask(trial: Trial) -> Outcome:
        guest, key = guest_of(trial), f"{process}.{work}"
        beats = _all(guest.after, guest.last)
        if beats is None:
            return no_data("beats after the resume", expected=f"no fault of {process}")
        after, last = beats
        if not {key, f"{process}.faults"} <= last.values.keys() or key not in after.values:
            return no_data(f"{_GUEST}, {key}", expected="0 faults")
        done, needed = last.exact(key) - after.exact(key), at_least(last)
        faults = last.exact(f"{process}.faults")
        said = [text for text in guest.faults if f" {process}:" in text]
        return outcome(
            faults == 0 and done >= needed,
            expected=f"0 faults in at least {needed} {work} after the resume",
            seen=f"{faults} faults in {done} {work}" + (f": {said[0]}" if said else ""),
            evidence=f"{_GUEST}, {process}.*",
        )

    return ask


def _clocks(trial: Trial) -> Outcome:
    """No clock goes back, neither from stamp to stamp (10 ms) nor from beat to beat."""
    last, back = guest_of(trial).last, guest_of(trial).went_back
    if last is None:
        return no_data("a beat after the resume", expected="no clock goes back")
    faults = {key: value for key, value in last.ending(".faults").items() if "stamper" in key}
    wrong = [key for key in back if key in ("mono_ns", "boot_ns", "real_ns", "tsc")]
    wrong += [f"{key} {value}" for key, value in faults.items() if value != "0"]
    return outcome(
        bool(faults) and not wrong,
        expected="no clock goes back",
        seen=f"went back: {', '.join(wrong)}" if wrong else "none went back",
        evidence=f"{_GUEST}, stamperN.faults, mono_ns, boot_ns, real_ns, tsc",
    )


def excused(trial: Trial, answer: Outcome, begin: int, end: int, ms: float) -> Outcome:
    """A failure by `ms` is none where the host was away for as long between the two times (ns)."""
    if answer.status == "PASS" or trial.host is None:
        return answer
    found = trial.host.longest(begin, end)
    if found is None or found[2] - found[1] < ms * 1e6:
        return answer
    return disturbed(answer, trial.host.said(found))


def _guest_time(trial: Trial) -> Outcome:
    """Each clock goes on by as much as the guest ran: what it did before and after its pause, and
    not the pause itself."""
    before, last = guest_of(trial).before, guest_of(trial).last
    stopped = qemu_of(trial, OUTGOING).events.get("stop")
    resumed = qemu_of(trial, INCOMING).events.get("resume")
    side = trial.side(OUTGOING)
    khz = side.number("tsc.khz") if side else None
    if before is None or last is None or stopped is None or resumed is None or not khz:
        return no_data("beats before and after the resume", expected="a clock that continues")
    ran = (last.t - before.t - (resumed - stopped)) / 1e6
    per_ms = {"mono_ns": 1e6, "boot_ns": 1e6, "real_ns": 1e6, "tsc": khz}
    off = {key: (last.exact(key) - before.exact(key)) / n - ran for key, n in per_ms.items()}
    worst = max(off, key=lambda key: abs(off[key]))
    bound = max(_LATE_MS, ran * _LATE_PART)
    answer = outcome(
        abs(off[worst]) <= bound,
        expected=f"{ran:.0f} ms, within {bound:.0f} ms: as long as the guest ran",
        seen=f"{ran + off[worst]:.0f} ms by the guest's {worst}, {off[worst]:+.0f} ms",
        evidence=f"{_GUEST}, {', '.join(per_ms)}, against the host's clock; {TRANSCRIPT}",
    )
    return excused(trial, answer, before.t, last.t, abs(off[worst]) - bound)


GUEST_TIME = Check("guest_time", "Do its clocks neither jump nor drift?", _guest_time)
NOT_BOOTED_AGAIN = Claim(
    "no reboot, no process restarted",
    "The guest was not rebooted, and none of its processes was restarted.",
    (
        Check("same_boot", "Is it the same boot of the guest?", same_boot),
        Check("same_processes", "Are they the same processes?", _same_processes),
        Check("counts_go_on", "Do their counts continue?", _counts_go_on),
    ),
)
WORK_GOES_ON = Claim(
    "the guest's own work continues",
    "The guest's own work continues without an error.",
    (
        Check(
            "guest_memory",
            "Is all the memory it checks intact?",
            _no_faults("checker", "steps", lambda last: last.exact("checker.pages")),
        ),
        Check(
            "guest_tcp",
            "Does its TCP connection continue, byte for byte?",
            _no_faults("receiver", "bytes", lambda _last: 65536),
        ),
        Check(
            "guest_file",
            "Does the file it writes read back as written?",
            _no_faults("writer", "verified", lambda _last: 1024),
        ),
        Check("guest_clocks", "Does none of its clocks go back?", _clocks),
        GUEST_TIME,
    ),
)
