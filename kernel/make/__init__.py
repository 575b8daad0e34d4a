# SPDX-License-Identifier: GPL-2.0-only
"""How a kernel is configured and compiled."""
