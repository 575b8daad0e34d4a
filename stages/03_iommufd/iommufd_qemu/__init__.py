# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3 with QEMU and a passed-through NIC."""
