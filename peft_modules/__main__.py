"""``python -m peft_modules export | import | merge``: as ``emopeft export`` and so on."""

import sys

from emopeft.commands.modules import adapters as main

if __name__ == "__main__":
    sys.exit(main())
