# SPDX-License-Identifier: GPL-2.0-only
"""Whose promise a check is, and what is expected of a kernel that does not make it.

A kernel makes a promise where its image, or its uAPI header, holds what goes with it: the name of
a format in which it hands something over, or an ioctl. What a tree is called says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date

from common.checks.model import Check


@dataclass(frozen=True)
class Promise:
    """What somebody says of a kernel. Without `marks` every kernel is held to it."""

    whose: str
    """For a table: "Linux", "VFIO v5"."""
    source: str
    """Where it is said: a document of the kernel and since when, or a Message-ID."""
    marks: tuple[str, ...] = ()
    """Regular expressions: one of what the kernel offers has to match one of them."""

    def made_by(self, offers: Collection[str]) -> bool:
        """True for a kernel that offers this."""
        return not self.marks or any(
            re.fullmatch(mark, offer) for mark in self.marks for offer in offers
        )


SUITE = Promise("suite", "this suite's own: how a run has to go to show anything")
LINUX = Promise("Linux", "Documentation/core-api/{liveupdate,kho/index}.rst; memfds since 6.19")
PCI = Promise(
    "PCI v9",
    "20260918200640.887030-1-dmatlack@google.com",
    (r"pci-v[0-9]+", r"pci-live-v[0-9]+"),
)
VFIO = Promise(
    "VFIO v5",
    "20260714151505.3466855-1-vipinsh@google.com",
    (r"vfio-pci-v[0-9]+", r"vfio-pci-live-v[0-9]+"),
)
RUNNING = Promise(
    "our 02",
    "kernel/series/02_vfio_noiommu; phases 2 and 3 of VFIO v5's roadmap",
    (r"vfio-pci-live-v[0-9]+",),
)
IOMMU = Promise(
    "IOMMU v5",
    "20260921004834.2601285-1-skhawaja@google.com",
    (r"iommu-liveupdate", r"iommu-v[0-9]+", r"iommu-live-v[0-9]+"),
)
RESTORED = Promise(
    "our 03",
    "kernel/series/03_iommufd",
    (r"iommufd-live-v[0-9]+",),
)
PROMISES = (SUITE, LINUX, PCI, VFIO, RUNNING, IOMMU, RESTORED)

# What a live update is, whatever it carries.
LIVE_UPDATE: Mapping[str, Promise] = {
    "both_sides_ended_well": LINUX,
    "dialogue_complete": SUITE,
    "other_kernel": SUITE,
    "build_ids": SUITE,
    "host_saw_kernels": SUITE,
    "cpu_timers": LINUX,
    "all_cpus": LINUX,
    "kho_exec_from": LINUX,
    "same_scratch": LINUX,
    "luo_number": LINUX,
    "new_boot_id": LINUX,
    "console_order": SUITE,
    "one_qemu": SUITE,
    "no_reset": SUITE,
    "no_splat": LINUX,
    "clock_rate": SUITE,
    "wall_clock": LINUX,
    "not_tainted": LINUX,
}
# What is asked of a device that does DMA meanwhile, by every stage that has one.
DMA: Mapping[str, Promise] = {
    "preserved_meanwhile": VFIO,
    "dma_in_gap": RUNNING,
    "no_silence": RUNNING,
    "never_held_up": RUNNING,
    "host_saw_all": RUNNING,
    "device_counted_all": RUNNING,
    "no_device_reset": RUNNING,
    "bus_mastering_kept": RUNNING,
    "stayed_in_d0": RUNNING,
    "never_gated": RUNNING,
    "same_config": RUNNING,
    "same_registers": RUNNING,
    "head_went_on": RUNNING,
    "other_silent": LINUX,
}


@dataclass(frozen=True)
class Expiry:
    """Until when something is expected to fail: from that release on, or after that day, not."""

    release: tuple[int, int] | None = None
    day: date | None = None

    def past(self, release: str, day: date) -> bool:
        """True for a kernel, or a day, from which on a failure is one."""
        found = re.match(r"([0-9]+)\.([0-9]+)", release)
        new = found and self.release and (int(found[1]), int(found[2])) >= self.release
        return bool(new) or (self.day is not None and day > self.day)

    def __str__(self) -> str:
        parts = [f"Linux {self.release[0]}.{self.release[1]}"] if self.release else []
        return " or ".join([*parts, *([self.day.isoformat()] if self.day else [])])


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What a kernel does instead that does not make a promise."""

    name: str
    """A word for the workload, which then leaves out what it would only break: stage.lacks=."""
    lacks: Promise
    what: str
    breaks: frozenset[str]
    """Checks that fail for it; one that holds is an XPASS."""
    may_break: frozenset[str]
    """Checks that may fail for it."""
    unasked: Mapping[str, str]
    """Checks that nobody can ask there, with why: N/A."""
    cause: Check
    """What the host's witness, or the kernel's own errno, has to show: else it is a FAIL."""
    causes: Mapping[str, Check] = field(default_factory=dict)
    """The same for checks that fall for a cause of their own."""
    holds: tuple[Check, ...] = ()
    """Has to hold as well."""
    until: Expiry


def gap_of(gaps: Collection[Gap], offers: Collection[Collection[str]]) -> Gap | None:
    """The first of them whose promise one of the kernels, by what each offers, does not make."""
    return next(
        (gap for gap in gaps if not all(gap.lacks.made_by(kernel) for kernel in offers)), None
    )
