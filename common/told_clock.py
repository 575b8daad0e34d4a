# SPDX-License-Identifier: GPL-2.0-only
"""What kernels on an emulated CPU are told of their clock, so that they need not find it out.

The TSC's frequency, which they find wrong on a busy host (common/host_tsc.py); and what follows
from it, the turns of a delay loop in a jiffy: 220 ms of each boot went into looking for them, on
the second CPU's account (init/calibrate.c: calibrate_delay).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from common.host_tsc import host_tsc_khz
from kernel.prebuilt import Bootable

_HZ = re.compile(r"^CONFIG_HZ=([1-9][0-9]{1,4})$", re.MULTILINE)


def clock_words(kernels: Iterable[Bootable]) -> tuple[str, ...]:
    """Words for the command line that all of `kernels` get; none without a TSC."""
    khz = host_tsc_khz()
    if khz is None:
        return ()
    rates = {_jiffies_per_second(kernel.config) for kernel in kernels}
    hz = rates.pop()
    if rates or hz is None:
        return (f"tsc_early_khz={khz}",)
    return f"tsc_early_khz={khz}", f"lpj={khz * 1000 // hz}"


def _jiffies_per_second(config: Path | None) -> int | None:
    """None of a kernel whose configuration is not known."""
    found = _HZ.search(config.read_text()) if config else None
    return int(found[1]) if found else None
