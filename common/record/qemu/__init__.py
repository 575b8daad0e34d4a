# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's own evidence: its trace, its monitor, its process."""
