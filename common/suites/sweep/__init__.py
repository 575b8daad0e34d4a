# SPDX-License-Identifier: GPL-2.0-only
"""Each call of a live update, cut at each point where something in it can fail."""
