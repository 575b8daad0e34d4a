# SPDX-License-Identifier: GPL-2.0-only
"""A sweep of what one kernel hands to the next: each field of each record, damaged on its way."""
