"""Make the shipped protocol files: ``python -m downstream.protocols.build``.

They were made once, and a test makes them again and compares. The two IEMOCAP files with
utterance ids are made from the fold files that SUPERB published with s3prl
(``meta_data/Session{1..5}/{train,test}_meta_data.json``); without ``--iemocap-metadata`` those
two are left as they are, and so is eight-emotions without ``--cremad-metadata``, a folder with
CREMA-D's VideoDemographics.csv and AudioWAV_sha256_size.tsv. ``--check`` writes nothing and says
what differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emopeft.downstream.protocols.protocol import parse
from emopeft.downstream.protocols.tables import RATED, folds_of, protocols
from emopeft.downstream.protocols.tables_iemocap import IEMOCAP_LABELS, LAST_IS_DEV, iemocap_tables
from emopeft.downstream.protocols.tables_more import more_tables
from emopeft.downstream.protocols.tables_msp import msp_tables
from emopeft.downstream.protocols.tables_pools import eight_emotions, eight_emotions_leaking
from emopeft.errors import UserError
from emopeft.files import read_json, write_text

HERE = Path(__file__).parent
SUPERB_CLASSES = {"neu": "neutral", "hap": "happy", "ang": "angry", "sad": "sad"}
S3PRL = "s3prl 0.4.18 (SUPERB), downstream/emotion/meta_data and expert.py, Apache 2.0"


def iemocap_protocols(metadata: Path) -> Iterator[dict[str, Any]]:
    """The protocols over SUPERB's 5531 utterances, from its published fold files.

    Raises:
        UserError: a file is missing or holds something else.
    """
    tests = [_published(metadata, k, "test") for k in range(1, 6)]
    utterances = {name: label for test in tests for name, label in test}
    place = {name: i for i, name in enumerate(utterances)}
    folds = []
    for k in range(1, 6):
        train = _published(metadata, k, "train")
        fit, dev = s3prl_split([place[name] for name, _ in train])
        test = [place[name] for name, _ in tests[k - 1]]
        folds.append({"name": str(k), "test": test, "dev": dev, "train": fit})
    common: dict[str, Any] = {
        "version": 1,
        "corpus": "iemocap",
        "task": RATED,
        "classes": list(SUPERB_CLASSES.values()),
        "labels": IEMOCAP_LABELS,
        "counts": {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084},
        "utterances": utterances,
    }
    yield {
        **common,
        "name": "iemocap-superb-random-dev",
        "description": (
            "SUPERB emotion recognition: fold k tests session k; a random 20 % of the other "
            "utterances is the dev part, so dev speakers are training speakers. 4 classes, "
            "excited counts as happy."
        ),
        "source": f"{S3PRL}: random_split under torch.manual_seed(0), int(0.8 N) to train",
        "unit": "position",
        "folds": folds,
        "speaker_overlap": ["dev"],
    }
    yield {
        **common,
        "name": "iemocap-loso",
        "description": (
            "Leave one session out with speakers apart everywhere: fold k tests session k, the "
            "last remaining session is the dev part. SUPERB's 5531 utterances and 4 classes, "
            "excited counts as happy."
        ),
        "source": f"utterances: {S3PRL}; dev: PEFT-SER (arXiv 2306.05350), train_split_gen",
        "unit": "session",
        "folds": folds_of(LAST_IS_DEV),
    }


def s3prl_split(places: list[int]) -> tuple[list[int], list[int]]:
    """Train and dev, as s3prl's emotion expert splits its training list, in its order."""
    import torch  # only who makes this file needs it

    first = int((1 - 0.2) * len(places))
    parts: list[Any] = torch.utils.data.random_split(
        places,  # type: ignore[arg-type]
        [first, len(places) - first],
        generator=torch.Generator().manual_seed(0),  # the draws of the global one under seed 0
    )
    train, dev = ([places[i] for i in part.indices] for part in parts)
    return train, dev


def _published(metadata: Path, session: int, side: str) -> list[tuple[str, str]]:
    """(utterance id, class) in the order of one published file."""
    path = metadata / f"Session{session}" / f"{side}_meta_data.json"
    try:
        rows = read_json(path)["meta_data"]
        return [(Path(row["path"]).stem, SUPERB_CLASSES[row["label"]]) for row in rows]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not one of s3prl's fold files: {error!r}") from error


def text(protocol: dict[str, Any]) -> str:
    """The file's text: a key a line; an utterance a line; of a fold, a side a line."""
    lines = []
    for key in (k for k in KEYS if k in protocol):
        value = protocol[key]
        if key == "utterances":
            rows = (f"  {_json(k)}: {_json(v)}" for k, v in value.items())
            lines.append('"utterances": {\n' + ",\n".join(rows) + "\n}")
        elif key == "folds":
            rows = (
                "  {" + ",\n   ".join(f"{_json(k)}: {_json(v)}" for k, v in fold.items()) + "}"
                for fold in value
            )
            lines.append('"folds": [\n' + ",\n".join(rows) + "\n]")
        else:
            lines.append(f"{_json(key)}: {_json(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


KEYS = (
    "name", "version", "corpus", "corpora", "task", "description", "source", "classes", "labels",
    "counts", "total", "unlabelled", "speaker_overlap", "unknown_speakers", "unscored",
    "submission", "unit", "leave_out", "rule", "folds", "utterances",
)  # fmt: skip


def _json(value: Any) -> str:
    compact = isinstance(value, list) and bool(value) and isinstance(value[0], int)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else (", ", ": "))


def build(metadata: Path | None = None, cremad: Path | None = None) -> dict[str, str]:
    """File name -> text of every protocol that can be made, each checked by the reader."""
    documents = [
        *iemocap_tables(),
        *msp_tables(),
        *protocols(),
        *more_tables(),
        *(iemocap_protocols(metadata) if metadata else ()),
        eight_emotions_leaking(),
        *((eight_emotions(cremad),) if cremad else ()),
    ]
    files = {}
    for protocol in documents:
        files[f"{protocol['name']}.json"] = text(protocol)
        parse(json.loads(text(protocol)), f"{protocol['name']}.json")
    return files


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m downstream.protocols.build", description=__doc__
    )
    parser.add_argument("--iemocap-metadata", type=Path, metavar="DIR")
    parser.add_argument("--cremad-metadata", type=Path, metavar="DIR")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args(arguments)
    try:
        files = build(options.iemocap_metadata, options.cremad_metadata)
        wrong = 0
        for name, content in files.items():
            path = HERE / name
            same = path.exists() and path.read_text(encoding="utf-8") == content
            wrong += not same
            if not same and not options.check:
                write_text(path, content)
            if not same:
                print(f"{name}: {'differs' if options.check else 'written'}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(files)} protocols made, {len(files) - wrong} already as they are in {HERE.name}/")
    return int(bool(wrong and options.check))


if __name__ == "__main__":
    sys.exit(main())
