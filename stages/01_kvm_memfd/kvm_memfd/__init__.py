# SPDX-License-Identifier: GPL-2.0-only
"""Stage 1: a KVM VM's memfd."""
