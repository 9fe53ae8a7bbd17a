"""The card's command line: ``python run_downstream.py -u hubert -d emotion -p lora``.

The same as ``emopeft run`` (emopeft/commands/card.py).
"""

from emopeft.commands.card import entry_point, main

__all__ = ["entry_point", "main"]

if __name__ == "__main__":
    entry_point()
