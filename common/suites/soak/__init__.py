# SPDX-License-Identifier: GPL-2.0-only
"""Trial after trial, round after round, and the table of them."""
