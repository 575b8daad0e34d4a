# SPDX-License-Identifier: GPL-2.0-only
"""A sweep of the handover: each field of each record is damaged on its way to the next kernel."""
