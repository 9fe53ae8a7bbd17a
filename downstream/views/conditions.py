"""Named sets of views in which a finished run is tested."""

from __future__ import annotations

from collections.abc import Iterable

from emopeft.downstream.views.base import CLEAN, View, parse_view
from emopeft.errors import UserError

SETS: dict[str, tuple[str, ...]] = {
    "noise": ("noise:snr=20", "noise:snr=10", "noise:snr=5", "noise:snr=0"),
    "babble": ("babble:snr=20", "babble:snr=10", "babble:snr=5", "babble:snr=0"),
    "room": ("reverb:rt60=0.3", "reverb:rt60=0.6", "reverb:rt60=1.2"),
    "channel": ("telephone", "mp3:kbps=16", "opus:kbps=8"),
    "short": ("excerpt:seconds=2", "excerpt:seconds=1"),
}
SETS["standard"] = (
    *SETS["noise"], "reverb:rt60=0.6", *SETS["channel"], *SETS["short"],
)  # fmt: skip


def conditions(words: Iterable[str]) -> list[View]:
    """The views of some sets and views, each once, in order; the clean one is not among them.

    Raises:
        UserError: neither a set nor a view, or a view whose clips would not all be the same test.
    """
    views: dict[str, View] = {}
    for word in words:
        for text in SETS.get(word.strip(), (word.strip(),)):
            try:
                view = parse_view(text)
            except UserError as error:
                raise UserError(f"{error}; sets of conditions: {', '.join(SETS)}") from None
            views[view.spelling] = view
    views.pop(CLEAN, None)
    return list(views.values())
