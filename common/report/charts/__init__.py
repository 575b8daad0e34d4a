# SPDX-License-Identifier: GPL-2.0-only
"""Pictures of a run, as SVG."""
