"""The papers and their experiments: the command that runs each, beside the paper's own numbers."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from emopeft.downstream.data.papers import (
    SOURCES,
    Experiment,
    Paper,
    experiments,
    folder_of,
    papers,
    read_paper,
)
from emopeft.downstream.data.recipe import FOLDER, shipped

FLAGS = {
    "upstream.name": "-u",
    "task": "-d",
    "method": "-p",
    "corpus.name": "--corpus",
    "protocol": "--protocol",
    "train.tune": "--tune",
}


LINE = 118  # characters
HEADERS = ["experiment", "paper", "note"]
WIDTHS = [None, 68, 28]  # for a terminal


def list_papers() -> str:
    """``emopeft recipes``."""
    rows = []
    for name in papers():
        paper = read_paper(folder_of(name))
        runs = [e for e in experiments(folder_of(name), paper) if e.table.recipe]
        known = sum(bool(e.row.paper or e.row.relative) for e in runs)
        rows.append([name, len(runs), known, cited(paper)])
    headers = ["recipes", "experiments", "with numbers", "paper"]
    return (
        tabulate(rows, headers, tablefmt="simple", maxcolwidths=[None, None, None, 70])
        + "\n\nemopeft recipes NAME shows a paper's experiments: the command of each, and what the "
        "paper reports.\nAny of these commands with --smoke tries it on the demo corpus."
    )


def show_paper(name: str) -> str:
    """``emopeft recipes PAPER``."""
    folder = folder_of(name)
    paper = read_paper(folder)
    text = [cited(paper), *([paper.link] if paper.link else []), ""]
    for table in paper.tables:
        own = [e for e in experiments(folder, paper) if e.table is table]
        text += [_filled(f"{table.name}: {table.title}")]
        text += [_filled(f"cannot be run yet: {table.waits}")] if table.waits else []
        rows = [[e.row.name, reported(e), e.row.note or ""] for e in own]
        shown = [i for i in range(len(HEADERS)) if any(row[i] for row in rows)]
        cells = [[row[i] for i in shown] for row in rows]
        titles, widths = [HEADERS[i] for i in shown], [WIDTHS[i] for i in shown]
        text += [tabulate(cells, titles, tablefmt="simple", maxcolwidths=widths), ""]
        if table.recipe:
            text += [*(f"{command(e)}  # {e.row.name}" for e in own), ""]
    if paper.missing:
        text += ["Not repeated here:", *(_filled(f"- {reason}") for reason in paper.missing), ""]
    text += _marks(folder, paper)
    return "\n".join(text).rstrip()


def _filled(text: str) -> str:
    return textwrap.fill(text, LINE, subsequent_indent="  ", break_long_words=False)


def cited(paper: Paper) -> str:
    return f"{paper.authors}{f' {paper.year}' if paper.year else ''}: {paper.title}"


def _marks(folder: Path, paper: Paper) -> list[str]:
    """What the marks behind numbers mean."""
    used = {e.source for e in experiments(folder, paper) if e.row.paper or e.row.relative}
    return [f"[{mark}] {what}" for mark, what in SOURCES.items() if mark in used]


def reported(experiment: Experiment) -> str:
    """The paper's numbers of an experiment, as result.json would have them, with their mark."""
    row, parts = experiment.row, []
    several = len(row.paper) > 1 or any(test != "test" for test in row.paper)
    for test, numbers in row.paper.items():
        values = ", ".join(f"{metric} {value:g}" for metric, value in numbers.items())
        parts.append(f"{test}: {values}" if several else values)
    if row.relative:
        against = row.relative
        facts = {"speed": "times faster", "trainable": "of the trainable parameters"}
        said = ", ".join(
            f"{getattr(against, name):g} {what}"
            for name, what in facts.items()
            if getattr(against, name) is not None
        )
        parts.append(
            f"{said} of {against.to}" if against.trainable else f"{said} than {against.to}"
        )
    marked = [f"{'; '.join(parts)} [{experiment.source}]"] if parts else []
    marked += [f"{count:,} {name} parameters" for name, count in row.parameters.items()]
    return "; ".join(marked)


def command(experiment: Experiment) -> str:
    """The command line that runs an experiment of a table that has a recipe."""
    folder = experiment.folder
    ours = folder == shipped(folder.name)
    place = Path(FOLDER) / folder.name if ours else folder
    words = ["emopeft", "run", "-c", str(place / str(experiment.table.recipe))]
    for key, value in experiment.keys.items():
        if key in FLAGS:
            words += [FLAGS[key], str(value)]
        elif key == "seeds":
            words += ["--seed", ",".join(map(str, value))]
        else:
            words += ["-o", f"{key}={_as_yaml(value)}"]
    return shlex.join(words)


def _as_yaml(value: Any) -> str:
    """A value on one line, as -o reads it."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
