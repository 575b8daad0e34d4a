# SPDX-License-Identifier: GPL-2.0-only
"""Kernels x stages x controls."""
