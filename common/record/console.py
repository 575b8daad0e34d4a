# SPDX-License-Identifier: GPL-2.0-only
"""The kernels' consoles, parsed. Pure functions.

The messages are those of Linux 7.3: kernel/panic.c (vpanic, __warn), kernel/kexec_core.c
(kernel_kexec: "Starting new kernel"), kernel/liveupdate/kexec_handover.c (kho_in_kexec_metadata:
"exec from"), luo_core.c (luo_early_startup: "liveupdate number").
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from common.record.dialogue import Line, Stored

_PREFIX = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[[ TC]*\d+\])? ?")

FATAL = re.compile(
    r"Kernel panic - not syncing|^Oops: |Oops\[#|BUG: unable to handle|"
    r"general protection fault|double fault|kernel BUG at|Unable to mount root fs|"
    # arm64: arch/arm64/mm/fault.c, kernel/traps.c
    r"Unable to handle kernel |^Internal error: "
)
SPLAT = re.compile(
    FATAL.pattern + r"|^WARNING: |BUG: |INFO: task .* blocked .*for more than|"
    r"possible circular locking|inconsistent lock state|suspicious RCU usage|"
    r"watchdog: BUG: soft lockup|rcu: INFO: |refcount_t: |Bad page state|"
    r"unreferenced object|pagealloc: |page dumped because: |is uninitialized and poisoned|"
    r"INFO: trying to register non-static key|"
    r"INFO: lockdep is turned off|Call [Tt]race:"
)
# What a kernel says when time passes and it did not: on a host that does not run the machine, too.
OF_TIME = re.compile(
    r"soft lockup|rcu: INFO: |blocked .*for more than|IO-APIC \+ timer doesn't work|"
    r"clocksource: .*unstable|hrtimer: interrupt took"
)
# What follows such a complaint, for each CPU: kernel/rcu/tree_stall.h, lib/nmi_backtrace.c
_TRACE = re.compile(r"Call [Tt]race:$")
_TRACE_LINES = 120
# The lines after the first (print_cpu_stall_info, print_cpu_stall)
_TICKS = re.compile(r"rcu: \s*(\d+)-.* \((\d+) ticks this GP\)")
_JIFFIES = re.compile(r"rcu: \s*\((?:detected by \d+, )?t=(\d+) jiffies\b")
_MOST_TICKS = 10  # each jiffy; a CPU takes one
# kernel/hung_task.c, and the functions that lead from the one that waits to the scheduler
_HUNG = re.compile(r"INFO: task .* blocked (?:in I/O wait )?for more than \d+ seconds")
_FRAME = re.compile(r" +(\? )?([\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+")
_WAITING = re.compile(
    r"(?:__)?(?:io_)?schedule|(?:__)?folio_(?:wait|lock)|(?:__)?(?:down|mutex|rt_mutex|rwsem|percpu_down|wait_for|do_wait)_"
    r"|(?:__)?wait_"
)
_FRAMES = 3
_VERSION = re.compile(r"Linux version (\S+) ")
# "usable" until 6.19
_RAM = re.compile(
    r"BIOS-e820: \[mem (0x[0-9a-f]{1,16})-(0x[0-9a-f]{1,16})\]\s+(?:System RAM|usable)$"
)
_JUMP = re.compile(r"kexec_core: Starting new kernel")
_KHO = re.compile(r"KHO: exec from: (.+) \(count ([0-9]{1,9})\)")
_LUO = re.compile(r"luo: Retrieved live update data, liveupdate number: ([0-9]{1,9})\b")
# What an incoming kernel says of data in another format: kexec_handover.c: kho_populate,
# kho_in_kexec_metadata; luo_core.c: luo_early_startup (it panics then); luo_file.c
_REFUSAL = re.compile(
    r"KHO: setup: handover FDT .* is incompatible with '|KHO: kexec-metadata version \d+ not"
    r"|luo(?:_\w+)?: No registered handler for compatible '|luo: LUO state is incompatible with '"
)
# kernel/panic.c: warn_slowpath_fmt, __warn: the text of a WARN() comes before its place
_CUT_HERE = "------------[ cut here ]------------"
_WORDS = 3  # lines
# mm/mm_init.c:deferred_init_memmap
_LATE_PAGES = re.compile(r"node (\d+) deferred pages initialised in ")
_FIRMWARE = re.compile(r"SeaBIOS|Booting from ROM|iPXE|BdsDxe")


class Boot(Stored):
    """One kernel's start, as its banner line says."""

    t: int
    number: int
    """Of the line, counted from 1: lines that came at once have one stamp."""
    release: str
    banner: str
    ram: tuple[str, ...] = ()
    """Ranges of RAM in the map that it was given, as `0x100000-0x273dffff`; x86 alone says them."""


class Splat(Stored):
    """A line that a healthy kernel does not print; `number` counts console lines from 1."""

    t: int
    number: int
    text: str
    fatal: bool
    waits_in: tuple[str, ...] = ()
    """Of a task that hangs: the functions in which it waits, the innermost first."""
    sure: bool = False
    """The kernel was sure of these."""

    @property
    def of_time(self) -> bool:
        """True for a complaint that a machine whose host stands still has to make."""
        return bool(OF_TIME.search(self.text))


class Handover(Stored):
    """``KHO: exec from: RELEASE (count N)``, printed by the incoming kernel."""

    t: int
    release: str
    count: int


class Console(Stored):
    """The relevant events on both kernels' consoles, in the order of time."""

    boots: tuple[Boot, ...] = ()
    kexecs: tuple[int, ...] = ()
    """Host times of "kexec_core: Starting new kernel"."""
    kexec_lines: tuple[int, ...] = ()
    """The numbers of these lines."""
    handovers: tuple[Handover, ...] = ()
    luo_numbers: tuple[int, ...] = ()
    refusals: tuple[str, ...] = ()
    """An incoming kernel's words on data that is not in a format of its own."""
    splats: tuple[Splat, ...] = ()
    firmware: tuple[str, ...] = ()
    late_pages: tuple[tuple[int, int], ...] = ()
    """Host time and node where struct pages were initialised late, by a thread of the node's."""
    ran_away: str | None = None
    """By an RCU stall's account of itself: a CPU that took more ticks than jiffies passed."""
    lines: int = 0


def strip_prefix(text: str) -> str:
    """The message without printk's time stamp and level."""
    return _PREFIX.sub("", text, count=1)


def is_beginning(text: str) -> bool:
    """Whether this line is a kernel's first."""
    return _VERSION.match(strip_prefix(text)) is not None


def is_fatal(text: str) -> bool:
    """True for a line after which this kernel will not go on."""
    return bool(FATAL.search(strip_prefix(text)))


def is_refusal(text: str) -> bool:
    """True for what an incoming kernel says of a handover that it does not know the format of."""
    return bool(_REFUSAL.match(text))


def _traced(last: Splat, number: int, boots: list[Boot]) -> bool:
    """Whether a call trace in line `number` belongs to a complaint about time."""
    same_kernel = not boots or boots[-1].number < last.number
    return last.of_time and same_kernel and number <= last.number + _TRACE_LINES


def _waits_in(hung: Splat, function: str, *, sure: bool) -> Splat:
    """The same, told with one more function of the stack, until there are enough.

    Where the kernel can walk the stack, what it is not sure of ("? ") only lay there.
    """
    known = hung.waits_in if hung.sure or not sure else ()
    if len(known) == _FRAMES or _WAITING.match(function) or (hung.sure and not sure):
        return hung
    found = (*known, function)
    said = hung.text.partition(". Waits in ")[0].removesuffix(".")
    text = f"{said}. Waits in {', called by '.join(found)}"
    return hung.model_copy(update={"text": text, "waits_in": found, "sure": hung.sure or sure})


def parse(lines: Iterable[Line]) -> Console:
    """The console's events. Never raises; unknown bytes are just lines without meaning."""
    boots: list[Boot] = []
    kexecs: list[int] = []
    kexec_lines: list[int] = []
    handovers: list[Handover] = []
    luo_numbers: list[int] = []
    refusals: list[str] = []
    splats: list[Splat] = []
    firmware: list[str] = []
    late_pages: list[tuple[int, int]] = []
    words: list[str] = []
    ticks: re.Match[str] | None = None
    ran_away: str | None = None
    number = 0
    for number, line in enumerate(lines, start=1):
        text = strip_prefix(line.text)
        if match := _VERSION.match(text):
            boots.append(Boot(t=line.t, number=number, release=match[1], banner=text))
        elif (match := _RAM.match(text)) and boots:
            ram = (*boots[-1].ram, f"{int(match[1], 16):#x}-{int(match[2], 16):#x}")
            boots[-1] = boots[-1].model_copy(update={"ram": ram})
        elif _JUMP.search(text):
            kexecs.append(line.t)
            kexec_lines.append(number)
        elif match := _KHO.match(text):
            handovers.append(Handover(t=line.t, release=match[1], count=int(match[2])))
        elif match := _LUO.match(text):
            luo_numbers.append(int(match[1]))
        elif _REFUSAL.match(text):
            refusals.append(text)
        elif _TRACE.match(text) and splats and _traced(splats[-1], number, boots):
            continue
        elif splats and _HUNG.match(splats[-1].text) and (match := _FRAME.match(text)):
            splats[-1] = _waits_in(splats[-1], match[2], sure=not match[1])
        elif SPLAT.search(text):
            said = f"{text} ({' '.join(words[1:])})" if words[1:] else text
            splats.append(Splat(t=line.t, number=number, text=said, fatal=bool(FATAL.search(text))))
            words = []
        elif match := _TICKS.match(text):
            ticks = match
        elif (match := _JIFFIES.match(text)) and ticks:
            if int(ticks[2]) > _MOST_TICKS * int(match[1]):
                ran_away = (
                    f"QEMU's clock ran away: CPU {ticks[1]} took {ticks[2]} ticks in {match[1]}"
                    " jiffies (console.log)"
                )
        elif match := _LATE_PAGES.match(text):
            late_pages.append((line.t, int(match[1])))
        elif _FIRMWARE.search(text):
            firmware.append(text)
        elif text == _CUT_HERE:
            words = [text]
        elif 0 < len(words) <= _WORDS:
            words.append(text)
    return Console(
        boots=tuple(boots),
        kexecs=tuple(kexecs),
        kexec_lines=tuple(kexec_lines),
        handovers=tuple(handovers),
        luo_numbers=tuple(luo_numbers),
        refusals=tuple(refusals),
        splats=tuple(splats),
        firmware=tuple(firmware),
        late_pages=tuple(late_pages),
        ran_away=ran_away,
        lines=number,
    )
