# SPDX-License-Identifier: GPL-2.0-only
"""Long command lines as text of a given width that a shell still reads. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def shell_lines(argv: Sequence[str], width: int) -> list[str]:
    """A command line that a POSIX shell reads back word for word, in lines of `width`."""
    lines = [""]
    for word in argv:
        quoted = shlex.quote(word)
        if len(lines[-1]) + 1 + len(quoted) + 2 <= width:
            lines[-1] += f" {quoted}" if lines[-1] else quoted
        elif len(quoted) + 2 <= width:
            lines[-1] += " \\"
            lines.append(quoted)
        else:
            lines[-1] += " \\"
            # A backslash at the end of a line joins what stands on both sides of it.
            pieces = [shlex.quote(part) for part in _cut(word, width - 2)]
            lines += [f"{piece}\\" for piece in pieces[:-1]] + [pieces[-1]]
    return lines if lines[0] != " \\" else lines[1:]


def _cut(word: str, size: int) -> list[str]:
    """Pieces of a word, none of which takes more than `size` characters when quoted."""
    pieces, at = [], 0
    while at < len(word):
        end = at + size
        while len(shlex.quote(word[at:end])) > size:
            end -= 1
        pieces.append(word[at:end])
        at = end
    return pieces
