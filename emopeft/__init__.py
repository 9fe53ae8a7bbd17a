"""EmoPEFT. Installed, all rooms lie in this package; in a checkout they lie beside it."""

from pathlib import Path

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "upstream").is_dir():  # a checkout: emopeft.upstream is ../upstream, and so on
    __path__.append(str(_HERE.parent))
