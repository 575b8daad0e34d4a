# SPDX-License-Identifier: GPL-2.0-only
"""What the host did beside a trial: absences and load."""
