# SPDX-License-Identifier: GPL-2.0-only
"""Stage 3: an iommufd."""
