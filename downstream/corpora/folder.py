"""A folder per class: ``--corpus folder --data ROOT`` with ROOT/angry/x.wav, ROOT/sad/y.flac, …

What the folders between ROOT and a file stand for is the option ``layout``, as so many words
with a / between them: ``label`` (the default), ``speaker/label``, ``split/label``,
``split/speaker/label``, … A level may be label, speaker, session, sex, style or split, as columns
of the manifest, or * for nothing that is known. A file at another depth is an error.

Who speaks is the level ``speaker``, or what the option ``speaker``, a regular expression, finds in
the file's name: its group where it has one, else all of it ('^[0-9]+'); else it is not known.
``-o 'corpus.options={layout: split/label, speaker: "^([a-z]+)_"}'``
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emopeft.downstream.corpora.base import Corpus, Utterance, audio_files, register
from emopeft.downstream.corpora.manifest_rows import short_names, utterances_of
from emopeft.errors import UserError

LEVELS = ("label", "speaker", "session", "sex", "style", "split", "*")


def read(root: Path, layout: str = "label", speaker: str | None = None) -> list[Utterance]:
    """The utterances of the tree, sorted by id.

    Raises:
        UserError: an option that cannot be.
        TreeError: listing every file that lies at another depth, or names no speaker.
    """
    levels = _levels(layout)
    pattern = _pattern(speaker, levels)
    paths = audio_files(root)
    files = [path.relative_to(root).as_posix() for path in paths]

    def rows() -> Iterator[tuple[str, dict[str, Any] | str]]:
        for file, name in zip(files, short_names(files), strict=True):
            *folders, last = file.split("/")
            if len(folders) != len(levels):
                yield (
                    file,
                    f"lies in {len(folders)} folders, and the layout {layout} has "
                    + str(len(levels)),
                )
                continue
            row = {k: v for k, v in zip(levels, folders, strict=True) if k != "*"}
            row |= {"id": name, "path": file}
            if pattern is not None:
                found = pattern.search(last.rpartition(".")[0])
                if found is None:
                    yield file, f"the pattern '{speaker}' of the speaker is not in its name"
                    continue
                row["speaker"] = found[1 if pattern.groups else 0] or ""
            yield file, row

    return sorted(utterances_of(root, rows(), root), key=lambda u: u.id)


def _levels(layout: Any) -> list[str]:
    levels = str(layout).strip("/").split("/")
    wrong = [level for level in levels if level not in LEVELS]
    if wrong or "label" not in levels or len(set(levels) - {"*"}) + levels.count("*") < len(levels):
        raise UserError(
            f"the layout {str(layout)[:80]!r} must be words out of {', '.join(LEVELS)} with a / "
            "between them, each once and label among them: speaker/label"
        )
    return levels


def _pattern(speaker: Any, levels: list[str]) -> re.Pattern[str] | None:
    if speaker is None:
        return None
    if "speaker" in levels:
        raise UserError("the speaker is a level of the layout: leave the option 'speaker' out")
    try:
        return re.compile(str(speaker))
    except re.error as error:
        raise UserError(f"the option 'speaker' is no regular expression ({error})") from error


register(
    Corpus(
        name="folder",
        title="a folder per class",
        licence="yours",
        citation="",
        read=read,
        emotions=(),
        protocol="manifest-speakers",
        folder="a folder with angry/x.wav and so on, see the option layout",
        language="any",
        options={
            "layout": "what the folders stand for: label (default), speaker/label, split/label, …",
            "speaker": "a regular expression that finds the speaker in the file's name",
        },
        like="manifest",
    )
)
