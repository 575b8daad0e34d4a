# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's image looked into, whoever built it."""
