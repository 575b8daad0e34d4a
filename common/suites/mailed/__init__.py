# SPDX-License-Identifier: GPL-2.0-only
"""A series as it is on its way on a list: the mailbox, what it stands on, and what is answered."""
