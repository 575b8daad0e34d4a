# SPDX-License-Identifier: GPL-2.0-only
"""Options and verbs: the only room with argparse."""
