# SPDX-License-Identifier: GPL-2.0-only
"""Mails to a list: the brief report, the full one, the answer to a mail."""
