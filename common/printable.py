# SPDX-License-Identifier: GPL-2.0-only
"""Text for terminals and mails: a console says anything, also what would drive a terminal."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with a replacement character for each control character but tab and newline.

    As long as it was, so that what was wrapped stays so.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
