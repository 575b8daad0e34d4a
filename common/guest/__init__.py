# SPDX-License-Identifier: GPL-2.0-only
"""The guest in the machine as the host sees it, and the checks of it."""
