# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel said when it died: what of it matters first, and its stack in words.

The stack is decoded by the kernel's own scripts/decode_stacktrace.sh, with the vmlinux and the
source that the cache keeps of the very kernel that died. That is done where the kernel was
built, at the end of the trial; what comes out is part of the record.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from common.record.console import FATAL, parse, strip_prefix
from common.record.cpus.last_look import LastLook, read_last_look
from common.record.dialogue import Line
from common.record.setting import Crash
from common.record.stored_file import read_stamped
from kernel.image.prebuilt import Bootable, Prebuilt
from kernel.source.source import sources_root

FIRST = 10
_SCRIPT = Path("scripts/decode_stacktrace.sh")
_DECODE_SECONDS = 120.0
# In a crash nearly every line is about registers; these say what happened, where, and to whom.
_MATTERS = re.compile(
    r"BUG: |Oops|Kernel panic|general protection|double fault|kernel BUG at|WARNING: |KASAN"
    r"|#PF: |RIP: \d+:|pc : |Internal error: |Unable to handle kernel|Unable to mount"
    r"|CPU: \d+ |Comm: |Workqueue: "
)
_TRACE, _PLACE = ("Call Trace:", "Call trace:"), ("RIP: ", "pc : ")
_FRAME = re.compile(r"^ *(?:\? )?[A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+")
_END = re.compile(r"</TASK>|---\[ end|Kernel Offset:|^RIP: ")


def crash_window(lines: Sequence[Line]) -> tuple[str, ...]:
    """The messages from the first sign of the crash to the end of the console, stamps off."""
    texts = [strip_prefix(line.text) for line in lines]
    fatal = next((n for n, text in enumerate(texts) if FATAL.search(text)), None)
    if fatal is None:
        return ()
    # An oops is told of before the line that ends the kernel.
    first = next((n for n in range(max(0, fatal - 4), fatal) if _MATTERS.search(texts[n])), fatal)
    return tuple(texts[first:])


def lines_that_matter(window: Sequence[str]) -> tuple[str, ...]:
    """The ten lines to read first: the cause, the place, the task, and the upper frames."""
    told = [text for text in window if _MATTERS.search(text) and "---[ end" not in text]
    frames = [text for text in window if _FRAME.match(text) and "? " not in text[:4]]
    frames = frames or [text for text in window if _FRAME.match(text)]
    return tuple([*dict.fromkeys(told)][:FIRST] + frames)[:FIRST]


def call_trace(window: Sequence[str]) -> tuple[str, ...]:
    """Where it happened, and the first call trace, as the kernel printed them."""
    start = next((n for n, text in enumerate(window) if text.startswith(_TRACE)), None)
    if start is None:
        return ()
    place = [text for text in window[:start] if text.startswith(_PLACE)][:1]
    end = next((n for n, text in enumerate(window) if n > start and _END.search(text)), None)
    frames = [text for text in window[start:end] if _FRAME.match(text)]
    return (*place, window[start], *frames)


def crash_of(phase: str, folder: Path, kernels: Sequence[Bootable]) -> Crash | None:
    """The crash of the trial in `folder`, None of one that was rebooted and had none."""
    lines, look = read_stamped(folder / "console.jsonl"), read_last_look(folder)
    if crash_window(lines):
        return describe(phase, lines, kernels)
    return describe_unheard(phase, look, kernels) if look else None


def describe(phase: str, lines: Sequence[Line], kernels: Sequence[Bootable]) -> Crash:
    """The crash of a trial, from its console; `kernels` are those that may have died."""
    boots = parse(lines).boots
    release = boots[-1].release if boots else ""
    died = next((kernel for kernel in kernels if kernel.release == release), None)
    return _described(phase, crash_window(lines), died, release, "on the console")


def describe_unheard(phase: str, look: LastLook, kernels: Sequence[Bootable]) -> Crash:
    """The crash of a kernel that did not come to its console, from its log in RAM."""
    died = next((kernel for kernel in kernels if kernel.build_id == look.build_id), None)
    lines = [Line(t=look.t, text=text) for text in look.texts]
    window = crash_window(lines)
    if not window:  # before there are handlers, registers are all that is told
        first = next((n for n, text in enumerate(look.texts) if text.startswith(_PLACE)), None)
        window = look.texts[first:] if first is not None else ()
    crash = _described(phase, window, died, died.release if died else "", "in its log in RAM")
    return crash if crash.stack else crash.model_copy(update={"stack": look.stack})


def _described(
    phase: str, window: Sequence[str], died: Bootable | None, release: str, where: str
) -> Crash:
    trace = call_trace(window)
    stack, decoded_by = trace, "nothing: it is not a kernel of this trial"
    if died and trace:
        stack, decoded_by = decode(died, trace)
    elif died:
        decoded_by = f"nothing: there is no call trace {where}"
    return Crash(
        phase=phase,
        kernel=release or "unknown",
        lines=lines_that_matter(window),
        stack=stack,
        decoded_by=decoded_by,
    )


def decode(kernel: Bootable, trace: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """(the trace's lines, decoded by the kernel's own script; how they were decoded).

    Where that is not possible: (the lines as they were, "nothing: " and the reason).
    """
    if isinstance(kernel, Prebuilt):
        return tuple(trace), "nothing: it is a prebuilt image, whose vmlinux is not known"
    tree = sources_root() / kernel.meta.worktree / "tree"
    if not (tree / _SCRIPT).exists():
        return tuple(trace), f"nothing: the cache has no {_SCRIPT} of {kernel.release} any more"
    command = ["bash", str(tree / _SCRIPT), str(kernel.vmlinux), str(tree)]
    try:
        done = subprocess.run(
            command,
            input="".join(f"{line}\n" for line in trace),
            capture_output=True,
            text=True,
            timeout=_DECODE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return tuple(trace), f"nothing: {_SCRIPT}: {error}"
    if done.returncode or not done.stdout.strip():
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[0]
        return tuple(trace), f"nothing: {_SCRIPT}: {said}"
    decoded = tuple(line.rstrip() for line in done.stdout.splitlines())
    note = f"{_SCRIPT}, vmlinux {kernel.build_id[:12]}"
    if "KCFLAGS=-g1" not in kernel.meta.flags:
        note += " without line tables (run with --line-tables for file and line)"
        decoded = _with_offsets(trace, decoded)
    return decoded, note


def _with_offsets(trace: Sequence[str], decoded: Sequence[str]) -> tuple[str, ...]:
    """The frames as they were, with the file where the script found one: it drops the offset."""
    if len(trace) != len(decoded):
        return tuple(trace)
    files = [re.search(r" \(([\w./-]+):", line) for line in decoded]
    return tuple(
        f"{frame} ({file[1]})" if file else frame for frame, file in zip(trace, files, strict=True)
    )
