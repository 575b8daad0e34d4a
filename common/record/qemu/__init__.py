# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU said: its trace, its monitor, its process."""
