# SPDX-License-Identifier: GPL-2.0-only
"""Text for terminals and mails, without control characters and private paths."""

from __future__ import annotations

import re

# Controls, line separators, surrogates; and what is not seen, or turns the order of what is: soft
# hyphen, joiners, marks and overrides of direction, fillers, variation selectors, tags.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\xad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_HOME = re.compile(r"(?<![\w.~-])/(?:root|home/[^/\s\"',:]+)(?=/)")


def printable(text: str) -> str:
    """The text with a replacement character for each character that steers a terminal or is not
    seen, but tab and newline.

    As long as it was, so that what was wrapped stays so.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def without_home(text: str) -> str:
    """The text with ~ for each home folder: whose it is a list need not know."""
    return _HOME.sub("~", text)
