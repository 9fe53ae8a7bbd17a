"""``python -m leaderboard RUNS_DIR --out DIR``: as ``emopeft board``."""

import sys

from emopeft.commands.modules import board as main

if __name__ == "__main__":
    sys.exit(main())
