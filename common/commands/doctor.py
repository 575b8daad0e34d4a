# SPDX-License-Identifier: GPL-2.0-only
"""The doctor verb."""

from __future__ import annotations

import argparse

from common.doctor import main_doctor


def doctor(_arguments: argparse.Namespace) -> int:
    """Print what this machine has and lacks; 0 when all that `demo` needs is there, else 3."""
    return main_doctor()
