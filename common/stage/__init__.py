# SPDX-License-Identifier: GPL-2.0-only
"""What a stage declares, and its configuration for one run."""
