# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1 with QEMU."""
