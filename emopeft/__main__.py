"""``python -m emopeft``: as the command ``emopeft``."""

from emopeft.commands.door import entry_point

if __name__ == "__main__":
    entry_point()
