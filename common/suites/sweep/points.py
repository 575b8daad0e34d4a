# SPDX-License-Identifier: GPL-2.0-only
"""What a sweep found: a point is a call of which the N-th copy, slab object or page failed. Pure.

The workload (sweep_workload of a stage) says what a call gave, what the same call gave after it,
and by how much the kernel's counters changed over the life of the session; here it is held against
a life of the same kind in which nothing failed (N = 0), or, of a call that goes through only once,
against no change at all.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from common.checks.swept import REBOOT, SweptCall, SweptCalls
from common.errors import first_of
from common.record import console, dialogue
from common.record.dialogue import Line

ARRIVED = "arrived"
"""A session that crosses the kexec with its call cut, in the incoming kernel, where nothing fails
any more: no call of its own."""

# include/uapi/linux/liveupdate.h: what LUO's ioctls mean by an errno. An allocation that fails is
# no memory, a copy that fails is a bad address; a field that is not correct is something else.
_SHORT_MEMORY = ("memory was short", frozenset({errno.ENOMEM}))
_DOCUMENTED = {
    "copy": ("a copy failed", frozenset({errno.EFAULT})),
    "slab": _SHORT_MEMORY,
    "page": _SHORT_MEMORY,
    "any": ("memory or a copy failed", frozenset({errno.ENOMEM, errno.EFAULT})),
}
"""Of each kind what failed, and the errnos that say so."""
_EXACT = {
    "fds": "open descriptors",
    "pins": "pins",
    "areas": "vmalloc areas",
    "shmem": "KiB of Shmem",
    "committed": "KiB of Committed_AS",
    "total": "KiB of MemTotal",
    "kho": "pages registered with KHO",
}
# A session that stays may take a page more of LUO's list of sessions, and what is preserved before
# a call that goes through only once is not given back after it.
_NOT_EXACT = frozenset({"kho"})
# The host counts these, in the RAM of the kernel that was booted; the workload says the others.
_BY_HOST = frozenset({"kho"})
_BEFORE_CALL, _AFTER_FAILURE, _AFTER_SUCCESS = ":armed", ":failed", ":made"
_COUNTERS = (*_EXACT, "taint")
_MARK = re.compile(r"sweep: (\w+:\w+:\d+|end)$")
# mm/page_alloc.c:warn_alloc(): that memory is short is said with a stack, and is no splat.
_SHORT = re.compile(r"(?:allocation failure|vmalloc error|failed).*, mode:0x[0-9a-f]+\(.*nodemask=")
_FAILED = "FAULT_INJECTION: forcing a failure."
_COPY = "fail_usercopy"
_NAME = re.compile(r"name (\w+), interval")
_FRAME = re.compile(r"^ *([A-Za-z_][\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
# The failure's own functions, and those that any allocation goes through.
_ALLOCATORS = re.compile(
    r"dump_stack|should_fail|fail_dump|_*k[mzc]alloc|_*kv[mz]alloc|_*kvmalloc|kmem_cache_|_*alloc_"
    r"|_*folio_alloc|_*get_free_page|get_zeroed_page|_*v[mzc]alloc|vcalloc|prepare_alloc_pages"
    r"|_copy_(from|to)_user|alloc_pages|__get_user|__slab|slab_pre_alloc"
)
_STACK_LINES = 60


@dataclass(frozen=True)
class Point:
    """A call that was cut; `n` counts from 1, and is 0 for the life in which nothing failed."""

    call: str
    kind: str
    n: int
    ret: int
    """0 or -errno."""
    injected: bool
    """Whether something failed at all."""
    steps: Mapping[str, int]
    """What each call after it gave, by name: 0 or -errno."""
    changes: Mapping[str, int]
    """By how much each counter is other than before the session was made; memory is in KiB."""
    left_over: Mapping[str, int] = field(default_factory=dict)
    """By how much a call that failed has changed each counter; empty where it may."""
    made: Mapping[str, int] = field(default_factory=dict)
    """By how much one that succeeded has; empty where it failed."""

    @property
    def name(self) -> str:
        """As --point takes it."""
        return f"{self.call}:{self.kind}:{self.n}"


@dataclass(frozen=True)
class Violation:
    """A point after which something is not as it has to be, and what that is."""

    point: str
    words: str
    where: str = ""
    """What failed: the functions of the kernel that asked for it, the innermost first. Nothing
    for what is allocated with __GFP_NOWARN: nobody says a word of these."""


@dataclass(frozen=True)
class Swept:
    """All that was found of one call."""

    call: SweptCall
    points: tuple[Point, ...] = ()
    unexhausted: tuple[str, ...] = ()
    """Kinds of which more is left that could fail than was tried."""
    violations: tuple[Violation, ...] = ()
    beyond: str = ""
    """What failed in a call that did not come back, and yet went through."""

    @property
    def tolerated(self) -> int:
        """The points at which the call succeeded although something failed in it."""
        return sum(point.ret == 0 for point in self.points)

    @property
    def errors(self) -> Mapping[str, int]:
        """Points by the name of the errno that the call gave there."""
        found: dict[str, int] = {}
        for point in self.points:
            if point.ret:
                found[_errno(point.ret)] = found.get(_errno(point.ret), 0) + 1
        return found


@dataclass(frozen=True)
class Sweep:
    """Both kernels' calls, and what was found of a whole kernel rather than of one point."""

    due: SweptCalls
    """Those that there are."""
    calls: tuple[Swept, ...] = ()
    others: tuple[Violation, ...] = field(default=())
    unfinished: str | None = None
    """The point that was begun, and of which nothing was said; None where all were."""

    @property
    def violations(self) -> tuple[Violation, ...]:
        """All, in the order of the calls; those of a whole kernel last."""
        return (*(one for swept in self.calls for one in swept.violations), *self.others)

    def whole(self, point: str | None = None) -> bool:
        """Whether all was tried that was asked for: every point of every call, or that one."""
        if point is None:
            tried = [swept.call for swept in self.calls if not swept.unexhausted]
            return tried == list(self.due.all)
        return any(cut.name == point for swept in self.calls for cut in swept.points) or any(
            c.call == REBOOT and point.startswith(f"{REBOOT.name}:") and not c.unexhausted
            for c in self.calls
        )

    @property
    def failed_for_good(self) -> Mapping[str, int]:
        """By call, at how many points it gave an error that it gives from then on."""
        return {
            swept.call.name: sum(_failed_for_good(point, swept.call) for point in swept.points)
            for swept in self.calls
        }


def read_sweep(
    due: SweptCalls,
    console_lines: Sequence[Line],
    dialogue_lines: Sequence[Line],
    kho: Sequence[tuple[str, int]] = (),
) -> Sweep:
    """What the raw lines of a sweep of these calls show. `kho`: pages registered with KHO after
    each point.

    Raises ValueError for a point that cannot be read.
    """
    facts: dict[str, str] = {}
    leaks: list[Violation] = []
    for side in dialogue.parse(dialogue_lines):
        if side.name == "incoming":
            facts["arrived"] = ""
        facts |= {k: v for k, v in side.facts.items() if k.startswith(("point.", "swept."))}
        objects = side.facts.get("kmemleak.objects", "0")
        if objects != "0":
            first = side.facts.get("kmemleak.first", "")
            leaks.append(Violation(f"{side.name} kernel", f"kmemleak: {objects} objects, {first}"))
    registered = _registered(kho)
    points = [
        _point(key, text, registered) for key, text in facts.items() if key.startswith("point.")
    ]
    said = {point.name for point in points}
    by_point = _console_by_point(console_lines)
    calls = tuple(
        _swept(call, [p for p in points if p.call == call.name], facts, by_point)
        for call in due.all
        if _was_tried(call, facts, by_point)
    )
    marks = [m[1] for line in console_lines if (m := _MARK.search(line.text))]
    arrived = _arrived(due, points, by_point)
    last = marks[-1] if marks else None
    unfinished = last if last and last not in ("end", *said) else None
    others = [
        Violation(name or "boot", complaint, of_point.where)
        for name, of_point in by_point.items()
        if name not in said
        for complaint in of_point.complaint()
    ]
    return Sweep(due, calls, (*arrived, *leaks, *others), unfinished)


def judge_point(point: Point, reference: Point, call: SweptCall) -> list[str]:
    """What is not as it has to be after this point, in words; empty where all is."""
    faults = []
    failed, documented = _DOCUMENTED[point.kind]
    for name, change in point.left_over.items():
        if change and name not in call.keeps:
            faults.append(f"{change:+d} {_EXACT[name]} left by the call that failed")
    if point.injected and not point.ret and not call.once:
        for name, due in reference.made.items():
            change = point.made[name] - due
            # What is never made good is told below.
            if change not in (0, point.changes[name] - reference.changes[name]):
                faults.append(f"{change:+d} {_EXACT[name]} by the call that succeeded")
    if point.ret and not point.injected and point.n:
        faults.append(f"{_errno(point.ret)}, where nothing was made to fail")
    elif point.ret and -point.ret not in documented | call.errnos:
        faults.append(f"{_errno(point.ret)}, where {failed}")
    again = point.steps.get("again")
    if again and not _failed_for_good(point, call):
        faults.append(f"{_errno(point.ret)}, and {_errno(again)} when called again")
    for name, ret in point.steps.items():
        if name != "again" and ret != reference.steps.get(name, 0):
            faults.append(f"{name}: {_errno(ret)}")
    # What a call that goes through only once changes when it does, nobody can say.
    for name, words in _EXACT.items() if point.ret or not call.once else ():
        if name in call.keeps or (name in _NOT_EXACT and (call.arrives or call.once)):
            continue
        change = point.changes[name] - reference.changes[name]
        if change:
            faults.append(f"{change:+d} {words}")
    if point.changes["taint"] and not reference.changes["taint"]:
        faults.append(f"the kernel is tainted: {point.changes['taint']}")
    return faults


def _failed_for_good(point: Point, call: SweptCall) -> bool:
    """Whether it gave an error that it gives from then on, as documented."""
    return call.for_good and point.ret != 0 and point.steps.get("again") == point.ret


def _was_tried(call: SweptCall, facts: Mapping[str, str], by_point: Mapping[str, _Said]) -> bool:
    """Whether anything was said of it; of a call that went through at once only its mark is."""
    said = any(key.startswith((f"point.{call.name}.", f"swept.{call.name}.")) for key in facts)
    return said or any(name.startswith(f"{call.name}:") for name in by_point)


def _swept(
    call: SweptCall,
    points: Sequence[Point],
    facts: Mapping[str, str],
    by_point: Mapping[str, _Said],
) -> Swept:
    references = {point.kind: point for point in points if point.n == 0}
    if call.once:
        no_change = dict.fromkeys(_COUNTERS, 0)
        references |= {k: Point(call.name, k, 0, 0, False, {}, no_change) for k in call.kinds}
    violations, cut = [], []
    for point in points:
        said = by_point.get(point.name, _Said())
        if point.kind in ("slab", "page") and said.where.startswith(_COPY):
            continue  # the same as one of kind "copy"
        if point.n and point.injected:
            cut.append(point)
        reference = references.get(point.kind)
        if reference is None:
            raise ValueError(f"no {call.name}:{point.kind}:0 to compare the others with")
        faults = judge_point(point, reference, call)
        if point.n == 0:
            faults += [f"{name}: {_errno(ret)}" for name, ret in point.steps.items() if ret]
            faults += [_errno(point.ret)] if point.ret else []
        faults += said.complaint()
        if faults:
            violations.append(Violation(point.name, "; ".join(faults), said.where))
    if call != REBOOT:
        more = tuple(
            k for k in call.kinds if not facts.get(f"swept.{call.name}.{k}", "").isdecimal()
        )
        return Swept(call, tuple(cut), more, tuple(violations))
    # What failed in the reboot that went through, beyond the point of no return.
    last = by_point.get(f"{REBOOT.name}:any:{len(points) + 1}", _Said())
    arrived = "arrived" in facts
    return Swept(call, tuple(cut), () if arrived else ("any",), tuple(violations), last.where)


def _arrived(
    due: SweptCalls, points: Sequence[Point], by_point: Mapping[str, _Said]
) -> list[Violation]:
    """What became of the sessions in which a PRESERVE_FD was cut, in the next kernel.

    Raises ValueError for a kind of which no life is there in which nothing failed.
    """
    came = {(point.kind, point.n): point for point in points if point.call == ARRIVED}
    # They are looked at before anything else there.
    incoming = [call.name for call in due.incoming]
    if not came and not any(point.call in incoming for point in points):
        return []
    found = []
    calls = {call.name: call for call in due.outgoing if call.arrives}
    for kept in (point for point in points if point.call in calls):
        point, reference = came.get((kept.kind, kept.n)), came.get((kept.kind, 0))
        if point is None:
            faults = ["the session has not arrived"]
        elif reference is None:
            raise ValueError(f"no {ARRIVED}:{kept.kind}:0 to compare the others with")
        else:
            faults = judge_point(point, reference, SweptCall(name=ARRIVED))
            if point.n == 0:
                faults += [f"{name}: {_errno(ret)}" for name, ret in point.steps.items() if ret]
            faults += by_point.get(point.name, _Said()).complaint()
        if faults:
            found.append(Violation(kept.name, f"in the next kernel: {'; '.join(faults)}"))
    return found


def _registered(kho: Sequence[tuple[str, int]]) -> dict[str, int]:
    """By how many pages each point changed what is registered, and each call that failed.

    Sessions lie before a reboot. Raises ValueError for a call that was not counted before.
    """
    ends = [
        one for one in kho if not one[0].endswith((_BEFORE_CALL, _AFTER_FAILURE, _AFTER_SUCCESS))
    ]
    found = {
        point: pages - before
        for (last, before), (point, pages) in pairwise(ends)
        if point.startswith(REBOOT.name) == last.startswith(REBOOT.name)
    }
    during = dict(kho)
    for point, pages in kho:
        if point.endswith((_AFTER_FAILURE, _AFTER_SUCCESS)):
            armed = during.get(point.rpartition(":")[0] + _BEFORE_CALL)
            if armed is None:
                raise ValueError(f"{point} was not counted before the call")
            found[point] = pages - armed
    return found


def _point(key: str, text: str, registered: Mapping[str, int]) -> Point:
    """Of `point.CALL.KIND.N` and `ret=-12 left=0 steps=again:0,finish:0 fds=0 …`."""
    _, call, kind, n = key.split(".")
    words = dict(word.split("=", 1) for word in text.split(" ") if "=" in word)
    try:
        steps = dict(step.split(":") for step in words["steps"].split(",") if step)
        changes = {name: int(words[name]) for name in _COUNTERS if name not in _BY_HOST}
        changes["kho"] = registered.get(f"{call}:{kind}:{n}", 0)
        left_over, made = (
            _changes(words.get(which, ""), registered.get(f"{call}:{kind}:{n}{when}", 0))
            for which, when in (("over", _AFTER_FAILURE), ("made", _AFTER_SUCCESS))
        )
        return Point(
            call=call,
            kind=kind,
            n=int(n),
            ret=int(words["ret"]),
            injected=int(words["left"]) == 0 and int(n) > 0,
            steps={name: int(ret) for name, ret in steps.items()},
            changes=changes,
            left_over=left_over,
            made=made,
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{key}={text[:200]} is not a point: {error}") from None


def _changes(text: str, kho: int) -> dict[str, int]:
    """Of `fds:0,pins:8,…`; nothing where there is none. `kho`: what the host counted."""
    found = dict(change.split(":") for change in text.split(",") if change)
    return {name: int(n) for name, n in found.items() if name in _EXACT} | (
        {"kho": kho} if found else {}
    )


@dataclass
class _Said:
    """What the console says from one point's mark to the next."""

    splats: list[str] = field(default_factory=list)
    where: str = ""

    def complaint(self) -> list[str]:
        """The first splat, and how many came with it; nothing where there is none."""
        return [f"console: {first_of(self.splats)}"] if self.splats else []


def _console_by_point(lines: Sequence[Line]) -> dict[str, _Said]:
    """By the name of a point; "" for what comes before the first, and "end" after the last."""
    splats = {splat.number: splat.text for splat in console.parse(lines).splats}
    found: dict[str, _Said] = {}
    at = ""
    stack: list[str] | None = None
    kind, left = "", 0
    for number, line in enumerate(lines, start=1):
        text = console.strip_prefix(line.text)
        if match := _MARK.search(text):
            at, stack = match[1], None
        elif console.is_beginning(text):
            at, stack = "", None
        said = found.setdefault(at, _Said())
        if text.endswith(_FAILED) or _SHORT.search(text):
            stack, kind, left = [], "", _STACK_LINES
        elif stack is not None:
            left -= 1
            if match := _NAME.match(text):
                kind = match[1]
            elif match := _FRAME.match(text):
                stack.append(match[1])
            elif "</TASK>" in text or left == 0:
                said.where = said.where or _where(kind, stack)
                stack = None
        if stack is None and number in splats and splats[number] not in said.splats:
            said.splats.append(splats[number])
    return found


def _where(kind: str, stack: Sequence[str]) -> str:
    """`failslab in A < B < C`: the innermost functions that are not the allocator's own."""
    own = [name for name in stack if not _ALLOCATORS.match(name)]
    return f"{kind} in {' < '.join(own[:3])}" if own else kind


def _errno(ret: int) -> str:
    return errno.errorcode.get(-ret, str(ret)) if ret else "0"
