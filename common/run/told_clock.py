# SPDX-License-Identifier: GPL-2.0-only
"""What kernels on an emulated CPU are told of their clock, so that they need not measure it.

The TSC's frequency, `tsc_early_khz=` (arch/x86/kernel/tsc.c: tsc_early_khz_setup), which they
measure wrong on a busy host (common/host/tsc.py); and what follows from it, the number of delay
loops in a jiffy, `lpj=` (init/calibrate.c: lpj_setup): the second CPU spent 220 ms of each boot on
measuring it (calibrate_delay).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from common.host.tsc import host_tsc_khz

_HZ = re.compile(r"^CONFIG_HZ=([1-9][0-9]{1,4})$", re.MULTILINE)


def clock_words(parameter: str, configs: Iterable[Path | None]) -> tuple[str, ...]:
    """Words for one command line of kernels with these configurations, None where one is not known.

    `parameter` is the kernel's for the counter's rate in kHz. No words without a TSC.
    """
    khz = host_tsc_khz()
    if khz is None:
        return ()
    rates = set(map(_jiffies_per_second, configs))
    hz = rates.pop()
    if rates or hz is None:
        return (f"{parameter}={khz}",)
    return f"{parameter}={khz}", f"lpj={khz * 1000 // hz}"


def _jiffies_per_second(config: Path | None) -> int | None:
    found = _HZ.search(config.read_text()) if config else None
    return int(found[1]) if found else None
