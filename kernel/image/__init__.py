# SPDX-License-Identifier: GPL-2.0-only
"""Inspecting a kernel's image, whoever built it."""
