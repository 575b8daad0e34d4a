# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's source, wherever it comes from."""
