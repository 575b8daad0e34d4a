# SPDX-License-Identifier: GPL-2.0-only
"""The host: its accelerator, its packages, its QEMU."""
