# SPDX-License-Identifier: GPL-2.0-only
"""Each call of a live update, failed at each point where something in it can fail."""
