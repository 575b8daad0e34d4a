# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel that died, or fell silent, left behind."""
