# SPDX-License-Identifier: GPL-2.0-only
"""What a stage's sweep makes fail: the calls of a session's life, as its workload names them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

KINDS = ("copy", "slab", "page")
"""What is counted: copies from and to userspace, which always are; with them objects of the slab,
or pages."""
ANY = "any"
"""All of them together."""


@dataclass(frozen=True, kw_only=True)
class SweptCall:
    """A call that is made to fail at each thing in it that can."""

    name: str
    kinds: tuple[str, ...] = KINDS
    once: bool = False
    """It goes through only once, for there is one object: no life in which nothing fails to compare
    the others with, and nothing may change where it fails."""
    errnos: frozenset[int] = frozenset()
    """What it may give beside ENOMEM for memory and EFAULT for a copy."""
    for_good: bool = False
    """It may give the same error from then on."""
    keeps: frozenset[str] = frozenset()
    """Counters that it may leave otherwise where it fails: what it has got is there for the next
    attempt."""
    arrives: bool = False
    """In a session that crosses the kexec, and is looked at there."""


REBOOT = SweptCall(name="reboot", kinds=(ANY,), once=True)
"""Does not come back where it goes through."""


@dataclass(frozen=True, kw_only=True)
class SweptCalls:
    """Those of both kernels, in their order, and the machine for them."""

    outgoing: tuple[SweptCall, ...]
    incoming: tuple[SweptCall, ...]
    devices: Callable[[], tuple[ET.Element, ...]] = tuple
    """libvirt elements."""
    cmdline: tuple[str, ...] = ()
    """What both kernels are told beside what the stage tells them."""

    @property
    def all(self) -> tuple[SweptCall, ...]:
        """Of the outgoing kernel, the reboot, and of the incoming one."""
        return (*self.outgoing, REBOOT, *self.incoming)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all calls."""
        return tuple(call.name for call in self.all)
