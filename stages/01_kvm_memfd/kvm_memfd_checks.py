# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1's claims and the questions to the record that show them. Pure functions of a Trial."""

from __future__ import annotations

from collections.abc import Callable

from common import checks
from common.checks import INCOMING, OUTGOING, facts_are, no_data, outcome, results_ok
from common.dialogue import Side
from common.record import Trial
from common.stage import Check, Claim, Outcome

RANGES = 64  # digests of RAM ranges that each side prints


def _vcpus(trial: Trial) -> range:
    return range(int(trial.setting.options["vcpus"]))


def _each_vcpu(ask: Callable[[Trial, int], Outcome]) -> Callable[[Trial], Outcome]:
    """The first vCPU's answer that is not PASS, else the last one's."""

    def ask_all(trial: Trial) -> Outcome:
        answers = [ask(trial, vcpu) for vcpu in _vcpus(trial)]
        return next((answer for answer in answers if answer.status != "PASS"), answers[-1])

    return ask_all


def both(trial: Trial) -> tuple[Side, Side] | None:
    """The outgoing and the incoming side, None when one never spoke."""
    before, after = trial.side(OUTGOING), trial.side(INCOMING)
    return (before, after) if before and after else None


def _ram_size(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    seen = side.facts.get("ram.size") if side else None
    wanted = str(int(trial.setting.options["guest_memory"]) << 20)
    if seen is None:
        return no_data("incoming fact ram.size", expected=wanted)
    return outcome(seen == wanted, expected=wanted, seen=seen, evidence="incoming fact ram.size")


def _ram_equal(trial: Trial) -> Outcome:
    """Every page's digest equal, as the workload found; 64 range digests compared here."""
    sides = both(trial)
    if sides is None:
        return no_data("one side never spoke", expected="equal digests")
    before, after = sides
    keys = ["ram.digest", *(f"ram.range.{n}" for n in range(RANGES))]
    missing = [key for key in keys if key not in before.facts or key not in after.facts]
    if missing or "ram.pages_different" not in after.facts:
        return no_data(f"fact {(missing or ['ram.pages_different'])[0]}", expected="equal digests")
    differ = [key for key in keys if before.facts[key] != after.facts[key]]
    different = after.facts["ram.pages_different"]
    where = after.facts.get("ram.first_different", ", ".join(differ))
    same = different == "0" and not differ
    return outcome(
        same,
        expected=f"digest {before.facts['ram.digest']}, 0 pages different",
        seen=f"digest {after.facts['ram.digest']}, {different} pages different"
        + ("" if same else f", first: {where}"),
        evidence=f"facts ram.digest, ram.range.0-{RANGES - 1}",
    )


def _host_saw(trial: Trial) -> Outcome:
    """The same bytes in the same page frames, read in QEMU's memory from outside."""
    pages = _pages(trial)
    digests = trial.witness.get("sha256", {})
    before, after = digests.get("captured"), digests.get("retrieved")
    if pages is None or before is None or after is None:
        return no_data("ram-witness.json has not both digests", expected="equal digests")
    return outcome(
        before == after and trial.witness["pages"] == pages,
        expected=f"SHA-256 {before[:16]}… of {pages} pages",
        seen=f"SHA-256 {after[:16]}… of {trial.witness['pages']} pages",
        evidence="ram-witness.json",
    )


def _pages(trial: Trial) -> int | None:
    side = trial.side(OUTGOING)
    return side.number("guest.pages") if side else None


def _extents(side: Side) -> list[tuple[int, int, int]] | None:
    """(page, pfn, count) of each run of pages, None when the list is not whole."""
    number = side.number("pfn.extents")
    if number is None:
        return None
    try:
        texts = [side.facts[f"pfn.extent.{n}"] for n in range(number)]
        return [(int(a), int(b, 0), int(c)) for a, b, c in (text.split(":") for text in texts)]
    except (KeyError, ValueError):
        return None


def _same_pages(trial: Trial) -> Outcome:
    """The page frame numbers, extent by extent; every page of the guest must be in them."""
    sides = both(trial)
    if sides is None:
        return no_data("one side never spoke", expected="the same page frames")
    before, after = (_extents(side) for side in sides)
    pages = sides[0].number("guest.pages")
    moved = sides[1].facts.get("pfn.moved")
    if before is None or after is None or pages is None or moved is None:
        return no_data("facts pfn.extent.*, pfn.moved", expected="the same page frames")
    covered = sum(count for _, _, count in after)
    unmapped = any(pfn == 0 for _, pfn, _ in before)
    where = sides[1].facts.get("pfn.first_moved", "")
    return outcome(
        before == after and covered == pages and moved == "0" and not unmapped,
        expected=f"{pages} pages in the {len(before)} extents they were in",
        seen=f"{covered} pages in {len(after)} extents, {moved} moved {where}".rstrip(),
        evidence="facts pfn.extent.*",
    )


def _registers(kind: str) -> Callable[[Trial], Outcome]:
    """What was captured was loaded, and the guest itself found its registers right."""

    def ask(trial: Trial, vcpu: int) -> Outcome:
        sides = both(trial)
        names = (f"guest.{vcpu}.{kind}", f"guest.{vcpu}.{kind}_at_load")
        errors = f"guest.{vcpu}.errors.{kind}"
        if sides is None or names[0] not in sides[0].facts or errors not in sides[1].facts:
            return no_data(f"facts {names[0]}, {errors}")
        captured, loaded = sides[0].facts[names[0]], sides[1].facts.get(names[1], "nothing")
        found = sides[1].facts[errors]
        return outcome(
            captured == loaded and found == "0",
            expected=f"{captured[:18]}… loaded, 0 mismatches seen by the guest",
            seen=f"{loaded[:18]}… loaded, {found} mismatches seen by the guest",
            evidence=f"facts {names[0]}, {names[1]}, {errors}",
        )

    return _each_vcpu(ask)


def _counter(trial: Trial, vcpu: int) -> Outcome:
    """Pause, load and the guest's own log agree on the counter to the step.

    The guest logs the counter at the two TSC readings around its longest gap; it may
    have been paused on either side of the increment between them.
    """
    sides = both(trial)
    if sides is None:
        return no_data("one side never spoke", expected="a counter")
    paused = sides[0].number(f"guest.{vcpu}.counter")
    keys = ("counter_at_load", "resume.counter_before", "resume.counter_after")
    loaded, before, after = (sides[1].number(f"guest.{vcpu}.{key}") for key in keys)
    if paused is None or loaded is None or before is None or after is None:
        return no_data(f"facts guest.{vcpu}.counter, .resume.counter_*", expected="a counter")
    return outcome(
        loaded == paused and before <= paused <= after <= before + 1,
        expected=f"{paused} at pause and load, no gap, no repeat",
        seen=f"{loaded} at load; guest's log: {before}, then {after}",
        evidence=f"facts guest.{vcpu}.counter, .counter_at_load, .resume.counter_*",
    )


def _guest_content(trial: Trial, vcpu: int) -> Outcome:
    """The guest verified every page after the resume and after FINISH, and found no fault."""
    side = trial.side(INCOMING)
    kinds = ("memory", "counter", "msr", "timer")
    if side is None:
        return no_data("incoming side never spoke", expected="no errors")
    errors = {kind: side.facts.get(f"guest.{vcpu}.errors.{kind}") for kind in kinds}
    sweeps = side.number(f"guest.{vcpu}.sweeps_after_resume")
    later = side.number(f"guest.{vcpu}.sweeps_after_finish")
    if None in errors.values() or sweeps is None or later is None:
        return no_data(f"facts guest.{vcpu}.errors.*, .sweeps_*", expected="no errors")
    found = ", ".join(f"{kind} {number}" for kind, number in errors.items())
    first = side.facts.get(f"guest.{vcpu}.first_error", "")
    return outcome(
        set(errors.values()) == {"0"} and sweeps >= 1 and later >= 1,
        expected="no errors in at least one sweep after resume and one after FINISH",
        seen=f"errors: {found}; sweeps {sweeps} and {later} {first}".rstrip(),
        evidence=f"facts guest.{vcpu}.errors.*",
    )


def ticks_gained(trial: Trial, vcpu: int) -> tuple[int, int] | None:
    """Timer interrupts of the vCPU before the pause, and since the resume; None without data."""
    sides = both(trial)
    before, after = (
        (side.number(f"guest.{vcpu}.ticks") for side in sides) if sides else (None, None)
    )
    return None if before is None or after is None else (before, after - before)


def _guest_ticks(trial: Trial, vcpu: int) -> Outcome:
    """At least a twentieth of the 100 ticks/s that the timer was programmed to.

    On a loaded host ticks are late and merge (15/s were seen); one more tick alone may be
    an interrupt that was pending when the state was captured.
    """
    ticks, side = ticks_gained(trial, vcpu), trial.side(INCOMING)
    if ticks is None or side is None:
        return no_data(f"fact guest.{vcpu}.ticks on both sides", expected="ticks go on")
    resumed, finished, khz = (side.number(key) for key in ("t.resume", "t.finished", "tsc.khz"))
    seconds = (finished - resumed) / (khz * 1000) if resumed and finished and khz else 0.0
    needed = max(3, round(seconds * 100 / 20))
    return outcome(
        ticks[0] > 0 and ticks[1] >= needed,
        expected=f"at least {needed} timer interrupts in {seconds:.1f} s after the resume",
        seen=f"{ticks[0]} before the pause, {ticks[1]} after the resume",
        evidence=f"fact guest.{vcpu}.ticks",
    )


def _guest_gap(trial: Trial, vcpu: int) -> Outcome:
    """The gap that the guest saw is the one in which it was paused, and longer than any before."""
    sides = both(trial)
    if sides is None:
        return no_data("one side never spoke", expected="a gap")
    gap = sides[1].number(f"guest.{vcpu}.resume.gap_tsc")
    usual = sides[0].number(f"guest.{vcpu}.gap_max_tsc")
    paused, resumed = sides[0].number("t.paused"), sides[1].number("t.resume")
    khz = sides[1].number("tsc.khz")
    if gap is None or usual is None or paused is None or resumed is None or not khz:
        return no_data(f"facts guest.{vcpu}.resume.gap_tsc, t.paused, t.resume", expected="a gap")
    ms, outside = gap / khz, (resumed - paused) / khz
    # What the vCPU's thread waits for a CPU at either end depends on the host's load.
    most = outside * 1.25 + 200
    return outcome(
        gap > usual and outside <= ms <= most,
        expected=f"{outside:.0f} ms (VMM: paused to resume), at most {most:.0f} ms",
        seen=f"{ms:.0f} ms (guest's TSC); longest before: {usual / khz:.1f} ms",
        evidence=f"facts guest.{vcpu}.resume.gap_tsc, t.paused, t.resume",
    )


def _ran_meanwhile(trial: Trial) -> Outcome:
    side = trial.side(OUTGOING)
    steps = [side.number(f"{what}.guest_steps") if side else None for what in ("preserve", "load")]
    if None in steps:
        return no_data("facts preserve.guest_steps, load.guest_steps", expected="more than 0")
    return outcome(
        all(number and number > 0 for number in steps),
        expected="the guest steps on during both",
        seen=f"{steps[0]} steps while preserving, {steps[1]} while loading",
        evidence="facts preserve.guest_steps, load.guest_steps",
    )


RETRIEVED = Check(
    "memfds_retrieved",
    "Did LUO hand back the session and both memfds?",
    facts_are(INCOMING, {"retrieve.session": "0", "retrieve.state": "0", "retrieve.ram": "0"}),
)
FINISHED = Check("session_finished", "Was FINISH accepted?", facts_are(INCOMING, {"finish": "0"}))

# The errno of each stands beside its test in workload/rules.c.
OUTGOING_RULES = (
    "second_open_of_device",
    "session_name_in_use",
    "session_name_empty",
    "session_name_too_long",
    "retrieve_unknown_session",
    "retrieve_outgoing_session",
    "token_in_use",
    "file_preserved_twice",
    "file_in_two_sessions",
    "preserve_closed_fd",
    "preserve_pipe",
    "preserve_eventfd",
    "retrieve_fd_of_outgoing_session",
    "finish_outgoing_session",
    "write_inside_preserved_memfd",
    "write_past_end_of_preserved_memfd",
    "resize_preserved_memfd",
    "punch_preserved_memfd",
    "resize_memfd_of_closed_session",
)
INCOMING_RULES = (
    "second_open_of_device",
    "retrieve_unknown_session",
    "retrieve_session_closed_before_kexec",
    "retrieve_session_twice",
    "retrieve_unknown_token",
    "preserve_in_incoming_session",
    "retrieve_token_twice_is_same_file",
    "finish_session",
    "finish_twice",
    "retrieve_fd_after_finish",
    "orphan_content",
    "orphan_content_after_close",
    "orphan_session_gone_after_close",
)

CLAIMS = (
    checks.LIVE_UPDATE,
    Claim(
        "The guest's memory was preserved while it ran, and every byte of it is equal.",
        (
            Check("guest_ran_on", "Did the guest run during preserve and load?", _ran_meanwhile),
            RETRIEVED,
            Check("ram_size", "Is the memfd as large as it was?", _ram_size),
            Check("ram_equal", "Is every page equal?", _ram_equal),
            Check("host_saw_ram", "Did the host, from outside, see the same bytes?", _host_saw),
        ),
    ),
    Claim(
        "They are the same physical pages: nothing was copied.",
        (Check("same_pages", "Are all page frame numbers the same?", _same_pages),),
    ),
    Claim(
        "The vCPUs go on where they were: registers, vector state, counter.",
        (
            Check("registers", "Do the general registers go on?", _registers("gpr")),
            Check("vector_state", "Do the vector registers go on?", _registers("vector")),
            Check("counter", "Does the counter go on without gap or repeat?", _each_vcpu(_counter)),
        ),
    ),
    Claim(
        "The guest itself, verifying all its memory, noticed nothing but time.",
        (
            Check("guest_content", "Did the guest find no fault?", _each_vcpu(_guest_content)),
            Check("guest_ticks", "Do its timer interrupts go on?", _each_vcpu(_guest_ticks)),
            Check("guest_gap", "Is the time it missed the blackout?", _each_vcpu(_guest_gap)),
        ),
    ),
    Claim(
        "The session behaves as LUO's source says, also when it is misused.",
        (
            Check(
                "outgoing_rules",
                "Right errno for each misuse?",
                results_ok(OUTGOING, OUTGOING_RULES),
            ),
            Check(
                "incoming_rules",
                "Right errno for each misuse?",
                results_ok(INCOMING, INCOMING_RULES),
            ),
            FINISHED,
        ),
    ),
)
