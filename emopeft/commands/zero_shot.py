"""``emopeft evaluate RUN --corpus OTHER``: a finished run on whole other corpora."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from emopeft.commands.parsing import filled, key_and_value
from emopeft.errors import UserError


def add_zero_shot_flags(parser: argparse.ArgumentParser) -> None:
    """What only an evaluation on other corpora takes."""
    parser.add_argument(
        "--labels", metavar="LABEL=CLASS,...", type=filled,
        help="evaluate --corpus: the corpus' labels as the run's classes, where names differ",
    )  # fmt: skip
    parser.add_argument(
        "--leaks", action="store_true",
        help="evaluate --corpus: go on where the run has heard some of it in training",
    )  # fmt: skip


def zero_shot(flags: argparse.Namespace, place: Path, fold: str, seed: int | None) -> int:
    """Test a run on other corpora, show it, and write the predictions where asked to."""
    from emopeft.downstream.data.places import corpora_of, places_of
    from emopeft.downstream.data.recipe import parse_override
    from emopeft.downstream.reports.zero_shot import zero_shot_tables
    from emopeft.downstream.runs.predict import write_rows
    from emopeft.downstream.runs.zero_shot import plain_rows
    from emopeft.downstream.runs.zero_shot import zero_shot as measure

    keys: dict[str, Any] = {"corpus.name": flags.corpus}
    for text in flags.override:
        keys |= parse_override(text)
    if other := [key for key in keys if not key.startswith("corpus.")]:
        raise UserError(f"-o {other[0]} is the run's own; an evaluation takes keys of corpus alone")
    if flags.data is not None:
        keys["corpus.data"] = places_of(flags.data, [c.name for c in corpora_of(flags.corpus)])
    items = filter(None, (flags.labels or "").split(","))
    labels = dict(key_and_value(item, "--labels") for item in items)
    done = measure(place, keys, fold, flags.upstream_path, seed, labels, flags.leaks)
    print(zero_shot_tables(done.results, done.notes))
    if flags.output is not None:
        write_rows(plain_rows(done.rows), flags.output)
        print(f"{len(done.rows)} rows in {flags.output}")
    return 0
