# SPDX-License-Identifier: GPL-2.0-only
"""From evidence to verdict; a stored run, or a bundle of one, judged again."""
