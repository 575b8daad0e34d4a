# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts in words, tables and formats."""
