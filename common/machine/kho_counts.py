# SPDX-License-Identifier: GPL-2.0-only
"""How much is registered with KHO at points of a trial, as the host finds it in the machine's RAM.

The workload says where the tree is (`# kho.fdt=`), and waits at each rendezvous `kho-NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from common.machine import kho_tree
from common.machine.ram import MachineRam

_FDT, _KHO = "# kho.fdt=", "# await kho-"


class KhoCounts:
    """Hears the lines of one outgoing side; `counts` is rendezvous -> order -> pieces."""

    def __init__(self, ram: Callable[[], AbstractContextManager[MachineRam]]) -> None:
        self._ram = ram
        self._root: int | None = None
        self.counts: dict[str, dict[str, int]] = {}

    def on_line(self, text: str) -> bool:
        """Take a line of the dialogue; True where it made the host look."""
        if text.startswith(_FDT):
            self._root = kho_tree.tree_root(bytes.fromhex(text.removeprefix(_FDT)))
        if not text.startswith(_KHO) or self._root is None:
            return False
        with self._ram() as ram:
            counts = kho_tree.preserved(ram.read, self._root)
        self.counts[text.removeprefix(_KHO)] = {str(k): n for k, n in sorted(counts.items())}
        return True
