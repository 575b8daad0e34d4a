# SPDX-License-Identifier: GPL-2.0-only
"""A series from a mailing list: its mailbox, its base, and the replies."""
