# SPDX-License-Identifier: GPL-2.0-only
"""Upstream's tests, before and after the series."""
