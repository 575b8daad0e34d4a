# SPDX-License-Identifier: GPL-2.0-only
"""Locks, processes and space on the disk."""
