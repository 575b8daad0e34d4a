# SPDX-License-Identifier: GPL-2.0-only
"""Numbered frames through a device into the machine's RAM: sender, watcher, witnesses, checks."""
