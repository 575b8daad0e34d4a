# SPDX-License-Identifier: GPL-2.0-only
"""Where files are kept: all outside the checkout, all in folders of our own."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def cache_root() -> Path:
    """$KEXEC_STAGES_CACHE, else $XDG_CACHE_HOME/kexec-stages, else ~/.cache/kexec-stages."""
    if named := os.environ.get("KEXEC_STAGES_CACHE"):
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kexec-stages"


def runs_root() -> Path:
    """The folder of run folders: $KEXEC_STAGES_RUNS, else CACHE/runs."""
    return Path(os.environ.get("KEXEC_STAGES_RUNS") or cache_root() / "runs")
