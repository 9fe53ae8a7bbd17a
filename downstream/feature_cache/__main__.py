"""``python -m downstream.feature_cache list`` and ``clean``."""

from emopeft.downstream.feature_cache.folders import entry_point

entry_point()
