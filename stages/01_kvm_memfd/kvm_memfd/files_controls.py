# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1's controls for what is next to the guest: small memfds, memory given back, lists."""

from __future__ import annotations

from collections.abc import Callable

from common.checks.controls import reason
from common.checks.live_update import INCOMING, OUTGOING, fact_is, no_data, outcome
from common.checks.model import Control, Outcome
from common.record.evidence import Trial
from kvm_memfd.files import words


def _word_is(side: str, fact: str, word: str, value: str) -> Callable[[Trial], Outcome]:
    """One word of a fact that has many, "size" of "file.written"."""

    def ask(trial: Trial) -> Outcome:
        spoken = trial.side(side)
        seen = words(spoken.facts.get(fact, "")).get(word) if spoken else None
        if seen is None:
            return no_data(f"{side} fact {fact}: {word}", expected=value)
        return outcome(
            seen == value,
            expected=f"{word}={value}",
            seen=f"{fact}: {word}={seen}",
            evidence=f"{side} fact {fact}",
        )

    return ask


def _not_negative(fact: str) -> Callable[[Trial], Outcome]:
    def ask(trial: Trial) -> Outcome:
        side = trial.side(INCOMING)
        seen = side.number(fact) if side else None
        if seen is None:
            return no_data(f"incoming fact {fact}", expected="no errno")
        return outcome(
            seen >= 0, expected="no errno", seen=f"{fact}={seen}", evidence=f"incoming fact {fact}"
        )

    return ask


def _bytes_lost(trial: Trial) -> Outcome:
    side = trial.side(INCOMING)
    seen = words(side.facts.get("file.written", "")).get("lost") if side else None
    if seen is None:
        return no_data("incoming fact file.written: lost", expected="some bytes")
    return outcome(
        seen != "0",
        expected="bytes that are lost",
        seen=f"file.written: lost={seen}",
        evidence="incoming fact file.written",
    )


GIVEN_BACK = frozenset(
    {
        "refusal_takes_nothing",
        "abort_gives_back",
        "kill_gives_back",
        "finish_gives_back",
        "unretrieved_given_back",
        "unfinished_given_back",
        "failed_retrieve",
        "many_given_back",
    }
)

CONTROLS = (
    Control(
        name="file-byte-flipped",
        what="one byte of one small memfd is flipped before the comparison",
        breaks=frozenset({"files_content", "host_saw_files"}),
        reason=reason(_word_is(INCOMING, "file.written", "wrong", "1")),
    ),
    Control(
        name="files-unlike",
        what="positions and seals are not set before the kexec, size and flags are changed"
        " after it",
        breaks=frozenset({"files_size", "files_position", "files_sealed", "files_flags"}),
        # Pages that are there only because the file is larger have not been written to.
        may_break=frozenset({"files_same_pages", "files_kept"}),
        reason=reason(_word_is(INCOMING, "file.written", "size", "65536")),
    ),
    Control(
        name="file-copied",
        what="one small memfd is copied into a new one, a page of which is then lost",
        breaks=frozenset({"files_same_pages", "files_kept"}),
        may_break=frozenset({"host_saw_files"}),
        reason=reason(_bytes_lost),
    ),
    Control(
        name="memory-kept",
        what="whenever memory should be given back, as much is allocated again",
        breaks=GIVEN_BACK,
        reason=reason(fact_is(INCOMING, "failed.finish", "0")),
    ),
    Control(
        name="preserved-elsewhere",
        what="the file expected to be refused as already preserved is a different one",
        breaks=frozenset({"preserved_once"}),
        may_break=frozenset({"refusal_takes_nothing"}),
        reason=reason(fact_is(OUTGOING, "preserved_elsewhere", "yes")),
    ),
    Control(
        name="retrieve-succeeds",
        what="the retrieve that should fail is given the memory it needs",
        breaks=frozenset({"failed_retrieve"}),
        reason=reason(_not_negative("failed.retrieve")),
    ),
    Control(
        name="some-dropped",
        what="one session, one file and one page of the many are left out",
        breaks=frozenset({"many_came"}),
        reason=reason(_word_is(INCOMING, "many.sessions", "first-wrong", "52")),
    ),
    Control(
        name="race-lost",
        what="each racer claims to be one step further than it is",
        breaks=frozenset({"serialised_at_once"}),
        reason=reason(_word_is(INCOMING, "race.0", "sessions", "0")),
    ),
)
