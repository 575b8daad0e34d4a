# SPDX-License-Identifier: GPL-2.0-only
"""Getting, patching, configuring, building and caching kernels."""
