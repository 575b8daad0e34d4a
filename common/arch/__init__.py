# SPDX-License-Identifier: GPL-2.0-only
"""The architecture of the machine whose kernel is replaced: all that differs, in one place."""
