# SPDX-License-Identifier: GPL-2.0-only
"""What the host did during a trial: stalls and load."""
