# SPDX-License-Identifier: GPL-2.0-only
"""What is taken from Debian by default."""

DEFAULT_PACKAGE = "linux-source-7.3"
"""The kernel's source."""
