# SPDX-License-Identifier: GPL-2.0-only
"""An answer to a patch mail: what it says, and below each line what stored runs show of it.

A line is answered where it says, in words that a claim declares (`Said`) or that the user gives,
what a check asks; never by likeness. What nothing answers is listed at the end. Pure.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from common import __version__
from common.checks.model import Claim
from common.errors import UsageError
from common.judge.stored_run import StoredRun
from common.judge.verdict import Answer
from common.report.mail.brief import kernels, repeat
from common.report.mail.quoted import Paragraph, QuotedMail
from common.report.mail.words import body, run_name, worst_main, wrap

_SHOWN = 4
"""Checks that passed, and controls, that an answer names; what did not pass is named whole."""
_TRIED = 8
"""Places of a paragraph where the same words are looked at: a stranger's mail may repeat them."""
_BARE = 12
"""Characters of an answer that may need what was expected beside it."""
_QUOTED = 100
"""Columns that a line of the mail may have, with what marks it: patch mails have up to 75."""
# A sentence with such a word says less than the words that were found in it.
_HEDGED = re.compile(
    r"\b(?:unless|except|if|whether|should|would|could|may|might|cannot|can't|will|planned"
    r"|expected to|future|later|follow-?up|to-?do|so far"
    r"|not (?:yet|claimed|guaranteed|tested|shown|supported)"
    r"|(?:does|do|did) not (?:mean|ensure|guarantee|imply|show|prove|claim))\b|\?$",
    re.I,
)
_SENTENCE = re.compile(r"(?<=[.!?;:]) ")


@dataclass(frozen=True)
class _Asked:
    """Words of the mail that a claim of a run answers, with which of its checks."""

    one: StoredRun
    claim: Claim
    checks: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """What two questions have in common that one answer will do for."""
        return self.one.seal, self.claim.brief, self.checks


def reply_body(
    runs: Sequence[StoredRun], mail: QuotedMail, given: Sequence[tuple[str, str]] = ()
) -> str:
    """The body. `given`: words of the mail and the check that answers them, as the user says.

    Raises UsageError where the mail does not say such words, where no run has the check, and for
    a run that has controls only.
    """
    if bare := [one.name for one in runs if worst_main(one) is None]:
        raise UsageError(f"{bare[0]} has no main run: it can answer nothing")
    asked: dict[range, list[_Asked]] = {}
    heard: set[tuple[str, str, tuple[str, ...]]] = set()
    silent: list[Paragraph] = []
    paragraphs = list(mail.paragraphs())
    _check(given, runs, paragraphs)
    for paragraph in paragraphs:
        found = list(_questions(paragraph, runs, given))
        if not found:
            silent.append(paragraph)
        for lines, question in found:
            if question.key not in heard:
                heard.add(question.key)
                asked.setdefault(lines, []).append(question)
    parts = [_opening(runs, mail)]
    for lines, questions in _joined(asked):
        parts.append("\n".join(line for n in lines for line in _quoted(mail.lines[n])))
        parts += ["\n".join(_answer(question, runs)) for question in _merged(questions)]
    answered = {(seal, brief) for seal, brief, _checks in heard}
    parts += [_unanswered(silent), _unasked(runs, answered), "\n".join(["Repeat", *repeat(runs)])]
    return body("\n\n".join(part for part in parts if part), quoted=_QUOTED)


def _quoted(line: str) -> list[str]:
    """A line of the mail as it stands there, wrapped only where it is very long."""
    return textwrap.wrap(line, _QUOTED, initial_indent="> ", subsequent_indent="> ") or [">"]


def _check(
    given: Sequence[tuple[str, str]], runs: Sequence[StoredRun], paragraphs: Sequence[Paragraph]
) -> None:
    for words, check in given:
        if not any(_literal(words).search(paragraph.text) for paragraph in paragraphs):
            raise UsageError(f"--answer: the mail does not say {words!r}")
        if not any(check == known.name for one in runs for known in one.stage.checks):
            raise UsageError(f"--answer: no run that was given has a check {check!r}")


def _literal(words: str) -> re.Pattern[str]:
    return re.compile(re.escape(" ".join(words.split())), re.I)


def _questions(
    paragraph: Paragraph, runs: Sequence[StoredRun], given: Sequence[tuple[str, str]]
) -> Iterator[tuple[range, _Asked]]:
    """What the paragraph says that a claim answers, with the lines it says it on."""
    text = paragraph.text
    for one in runs:
        for claim in one.stage.claims:
            names = tuple(check.name for check in claim.checks)
            patterns = [(re.compile(s.words, re.I), s.checks or names, True) for s in claim.said]
            patterns += [(_literal(w), (check,), False) for w, check in given if check in names]
            for pattern, wanted, declared in patterns:
                # a prebuilt kernel or a guest of the user's leaves some checks out
                checks = tuple(name for name in wanted if name in names)
                if not checks:
                    continue
                for match in islice(pattern.finditer(text), _TRIED):
                    start, end = _sentences(text, match)
                    rest = text[start : match.start()] + text[match.end() : end]
                    if declared and (_HEDGED.search(rest) or not paragraph.own):
                        continue
                    yield paragraph.lines_of(start, end), _Asked(one, claim, checks)
                    break


def _sentences(text: str, match: re.Match[str]) -> tuple[int, int]:
    """Where the sentence that the words stand in begins and ends."""
    starts = [0, *(cut.end() for cut in _SENTENCE.finditer(text)), len(text) + 1]
    begin = max(start for start in starts if start <= match.start())
    return begin, min(start for start in starts if start >= match.end()) - 1


def _joined(asked: dict[range, list[_Asked]]) -> Iterator[tuple[range, list[_Asked]]]:
    """Lines in the mail's order, those that overlap as one."""
    found: list[tuple[range, list[_Asked]]] = []
    for lines, questions in sorted(asked.items(), key=lambda item: (item[0].start, item[0].stop)):
        if found and lines.start < found[-1][0].stop:
            before, earlier = found.pop()
            lines = range(before.start, max(before.stop, lines.stop))
            questions = [*earlier, *questions]
        found.append((lines, questions))
    yield from found


def _merged(questions: Sequence[_Asked]) -> Iterator[_Asked]:
    """One question for each claim of a run, of all the checks that are asked for."""
    found: dict[tuple[str, str], _Asked] = {}
    for question in questions:
        key = question.key[:2]
        before = found[key].checks if key in found else ()
        checks = tuple(dict.fromkeys((*before, *question.checks)))
        found[key] = replace(question, checks=checks)
    yield from found.values()


def _opening(runs: Sequence[StoredRun], mail: QuotedMail) -> str:
    who = mail.sender or "somebody"
    return "\n".join(
        [
            *wrap(f"On {mail.date or 'a day that is not recorded'}, {who} wrote:"),
            "",
            *wrap(
                f"Generated by kexec-stages {__version__}, a program: it answers what stored runs"
                " check. Whether the patches below are those of the mail is not recorded."
            ),
            *kernels(runs),
            *(
                line
                for one in runs
                if not one.verdict.controls
                for line in wrap(
                    f"{run_name(one, runs)}: no control was run: that its checks can fail is not"
                    " shown."
                )
            ),
        ]
    )


def _answer(question: _Asked, runs: Sequence[StoredRun]) -> Iterator[str]:
    one, claim = question.one, question.claim
    trial = worst_main(one)
    assert trial is not None
    name = run_name(one, runs)
    answers = [answer for answer in trial.answers if answer.check in question.checks]
    status, passed = _status(answers), _passed(answers)
    yield from wrap(
        f"{status}: {name}, {claim.brief}, {len(passed)}/{len(answers)} checks", "", "  "
    )
    if one.verdict.status not in ("PASS", status):
        yield from wrap(f"The run as a whole: {one.verdict.status}: {one.verdict.why}", "  ")
    for answer in answers:
        outcome = answer.outcome
        if not outcome.held:
            told = f"{answer.check} {outcome.status}: expected {outcome.expected}; seen"
            yield from wrap(f"{told} {outcome.seen} ({outcome.evidence})", "  ", "    ")
    for answer in passed[:_SHOWN]:
        outcome = answer.outcome
        # "none" alone says nothing
        of = "" if len(outcome.seen) > _BARE else f"{outcome.expected}: "
        yield from wrap(f"{answer.check}: {of}{outcome.seen}", "  ", "    ")
    if len(passed) > _SHOWN:
        yield f"  and {len(passed) - _SHOWN} more that passed"
    yield from _controls(one, frozenset(question.checks))


def _passed(answers: Iterable[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.outcome.held]


def _status(answers: Sequence[Answer]) -> str:
    """The first that applies: what was expected to fail, what failed, what is not known."""
    found = {answer.outcome.status for answer in answers}
    if not found:
        return "NO DATA"
    ranked = ("FAIL", "NO DATA", "DISTURBED", "XFAIL", "N/A", "XPASS", "PASS")
    return next(status for status in ranked if status in found)


def _controls(one: StoredRun, checks: frozenset[str]) -> Iterator[str]:
    """Which controls broke these checks, and which should have and did not."""
    ran = {control.control: control for control in one.verdict.controls}
    mine = sorted((c for c in one.stage.controls if c.breaks & checks), key=lambda c: len(c.breaks))
    good = [c.name for c in mine if c.name in ran and ran[c.name].good]
    for control in (ran[c.name] for c in mine if c.name in ran and not ran[c.name].good):
        told = f"control {control.control} {control.status}: {control.why}"
        yield from wrap(told, "  ", "    ")
    if good:
        more = f" and {len(good) - _SHOWN} more" if len(good) > _SHOWN else ""
        yield from wrap(f"broken by {', '.join(good[:_SHOWN])}{more}, as it must be", "  ", "    ")
    elif not mine:
        yield "  no control of this stage breaks it"
    elif ran and not any(c.name in ran for c in mine):
        yield "  no control that breaks it was run: that it can fail is not shown"


def _unanswered(silent: Sequence[Paragraph]) -> str:
    if not silent:
        return ""
    told = [_quoted(paragraph.lines[0].strip())[0] for paragraph in silent]
    return "\n".join(["Not answered by these runs (each paragraph's first line):", *told])


def _unasked(runs: Sequence[StoredRun], answered: Container[tuple[str, str]]) -> str:
    lines = []
    for one in runs:
        briefs = [c.brief for c in one.stage.claims if (one.seal, c.brief) not in answered]
        if briefs:
            lines += wrap(f"{run_name(one, runs)}: {'; '.join(briefs)}", "", "  ")
    return "\n".join(["Checked, but not mentioned in the mail:", *lines]) if lines else ""
