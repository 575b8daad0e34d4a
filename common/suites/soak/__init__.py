# SPDX-License-Identifier: GPL-2.0-only
"""Every trial, round after round, and the table of the results."""
