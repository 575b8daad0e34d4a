# SPDX-License-Identifier: GPL-2.0-only
"""The supported architectures, by name."""

from __future__ import annotations

from common.arch.arm64 import ARM64
from common.arch.x86_64 import X86_64

ARCHITECTURES = {arch.name: arch for arch in (X86_64, ARM64)}
"""Name -> architecture; the first is the default."""
DEFAULT = X86_64
