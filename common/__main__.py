# SPDX-License-Identifier: GPL-2.0-only
"""`python -m common`: what the launcher runs."""

import sys

from common.cli.parser import main

sys.exit(main())
