# SPDX-License-Identifier: GPL-2.0-only
"""One QEMU through libvirt: serial lines, RAM, time limits."""
