# SPDX-License-Identifier: GPL-2.0-only
"""Text for terminals and mails: of what a console says, and of what nobody needs to know."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HOME = re.compile(r"(?<![\w.~-])/(?:root|home/[^/\s\"',:]+)(?=/)")


def printable(text: str) -> str:
    """The text with a replacement character for each control character but tab and newline.

    As long as it was, so that what was wrapped stays so.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def without_home(text: str) -> str:
    """The text with ~ for each home folder: whose it is a list need not know."""
    return _HOME.sub("~", text)
