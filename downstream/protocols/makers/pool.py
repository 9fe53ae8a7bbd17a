"""Several corpora as one: ``--corpus ravdess+emodb --protocol pool``, folds by speaker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance
from emopeft.downstream.protocols.makers.base import Maker, register
from emopeft.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """What stands after ``pool:``.

    Attributes:
        folds: how many groups of speakers; each is tested once.
    """

    folds: int = 5


def make(
    options: Options, corpora: Sequence[Corpus], utterances: Sequence[Utterance]
) -> Mapping[str, Any]:
    """The corpora's common labels, and folds of all their speakers."""
    present = [{u.emotion for u in utterances if u.corpus == c.name} - {None} for c in corpora]
    classes = sorted(set.intersection(*present))  # type: ignore[arg-type]
    names = "+".join(c.name for c in corpora)
    if len(classes) < 2:
        raise UserError(f"corpora {names} have fewer than two labels in common")
    return {
        "name": f"pool-{len(classes)}",
        "version": 1,
        "corpora": [c.name for c in corpora],
        "task": "emotion",
        "description": f"{names} as one corpus, folds by speaker",
        "source": "downstream/protocols/makers/pool.py",
        "classes": classes,
        "labels": {c.name: {label: label for label in classes} for c in corpora},
        "unit": "rule",
        "rule": {"by": "speaker", "one_each_up_to": 3, "folds": options.folds},
    }


register(Maker("pool", "several corpora as one, folds by speaker", Options, make))
