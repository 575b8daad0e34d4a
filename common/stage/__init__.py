# SPDX-License-Identifier: GPL-2.0-only
"""What a stage declares, and the same as one run has it."""
