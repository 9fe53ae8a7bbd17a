"""``python -m downstream.feature_cache list`` and ``clean``: as ``emopeft cache``."""

import sys

from emopeft.commands.modules import cache as main

if __name__ == "__main__":
    sys.exit(main())
