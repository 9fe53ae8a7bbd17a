"""``python -m downstream.corpora list`` and ``check NAME DIR``: as ``emopeft check``."""

import sys

from emopeft.commands.modules import corpora as main

if __name__ == "__main__":
    sys.exit(main())
