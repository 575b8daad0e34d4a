# SPDX-License-Identifier: GPL-2.0-only
"""Questions to a trial, and the reasons for which a control must fail."""
