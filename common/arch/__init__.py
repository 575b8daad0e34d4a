# SPDX-License-Identifier: GPL-2.0-only
"""Architectures of the machine whose kernel is replaced: what differs, in one place."""
