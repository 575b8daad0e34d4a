# SPDX-License-Identifier: GPL-2.0-only
"""This computer: its accelerator, its packages, its QEMU."""
