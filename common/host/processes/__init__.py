# SPDX-License-Identifier: GPL-2.0-only
"""Processes on the host: busy ones, clean-up, priorities, how they ended."""
