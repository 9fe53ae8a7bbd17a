"""The lists of what there is: upstreams, methods, corpora, protocols, tasks, views."""

from __future__ import annotations

import dataclasses
import inspect
import textwrap

from tabulate import tabulate

from emopeft.downstream.protocols.makers.base import MAKERS
from emopeft.downstream.protocols.protocol import list_protocols
from emopeft.downstream.reports.corpora import detail, table
from emopeft.downstream.tasks.base import TASKS
from emopeft.downstream.views.base import TRANSFORMS
from emopeft.downstream.views.conditions import SETS


def listing(what: str, name: str | None = None) -> str:
    """``emopeft list WHAT``, or ``corpora NAME``."""
    if name is not None:
        return detail(name)
    return {
        "upstreams": _upstreams,
        "methods": _methods,
        "corpora": table,
        "protocols": _protocols,
        "tasks": _tasks,
        "views": _views,
    }[what]()


def _upstreams() -> str:
    from emopeft.upstream.catalogue import UPSTREAMS
    from emopeft.upstream.s3prl_names import s3prl_names

    rows = []
    for name, entry in UPSTREAMS.items():
        if name == entry.name:
            size = f"{entry.parameters:,} M" if entry.parameters else ""
            rows.append(
                [name, ", ".join(entry.aliases), entry.family, size, entry.licence,
                 entry.hub_id or entry.note or ""]
            )  # fmt: skip
    headers = ["upstream", "also", "family", "parameters", "licence", "source"]
    names = s3prl_names()
    return (
        tabulate(rows, headers, tablefmt="simple")
        + "\n\nAlso: any model of these families as hf:ORG/NAME, or a local directory with "
        f"--upstream-path;\nand s3prl's {len(names)} upstreams, run as a whole, as s3prl:NAME:\n  "
        + _wrapped(names)
    )


def _wrapped(names: list[str]) -> str:
    return "\n  ".join(textwrap.wrap(" ".join(names), 96, break_on_hyphens=False))


def _methods() -> str:
    from emopeft.peft_modules.base import METHODS

    native, library = [], []
    for name, cls in METHODS.items():
        fields = dataclasses.fields(cls)
        if cls.__module__ == "emopeft.peft_modules.library":
            library.append([name, cls.summary, ", ".join(f.name for f in fields)])
            continue
        options = "\n".join(
            f"{f.name}={'+'.join(f.default) if isinstance(f.default, tuple) else f.default}: "
            f"{f.metadata['help']}"
            for f in fields
        )
        native.append([name, cls.kind, cls.summary, options, cls.reference])
    headers = ["method", "trains", "what", "options (defaults)", "reference"]
    return (
        tabulate(native, headers, tablefmt="simple", maxcolwidths=[None, None, 32, 56, 28])
        + "\n\nFrom the installed peft, with its own option names and defaults:\n\n"
        + tabulate(library, ["method", "what", "options"], maxcolwidths=[None, 40, 76])
        + "\n\nSums: lora+ws. Options: lora:r=16,targets=q+v. Alone: partial:3. "
        "A paper's defaults: lora@peft-ser."
    )


def _protocols() -> str:
    rows = [
        [
            p.name,
            p.corpus,
            " ".join(p.tasks),
            len(p.folds) or "by rule",
            len(p.classes) or ("all" if "emotion" in p.tasks else ""),
            p.description,
        ]  # fmt: skip
        for p in list_protocols()
    ]
    headers = ["protocol", "corpus", "tasks", "folds", "classes", "what"]
    widths = [None, None, 13, None, None, 60]
    made = [
        [name, maker.help, ", ".join(field.name for field in dataclasses.fields(maker.options))]
        for name, maker in MAKERS.items()
    ]
    return (
        tabulate(rows, headers, tablefmt="simple", maxcolwidths=widths)
        + "\n\nMade of the corpora at hand, as NAME or NAME:option=value,...\n\n"
        + tabulate(made, ["protocol", "what", "options"], tablefmt="simple")
    )


def _views() -> str:
    rows = []
    for name, cls in TRANSFORMS.items():
        options = [f"{f.name}={f.default}: {f.metadata['help']}" for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        rows.append([name, cls.summary, "\n".join(options)])
    sets = [[name, "  ".join(views)] for name, views in SETS.items()]
    return (
        tabulate(rows, ["view", "what", "options (defaults)"], maxcolwidths=[None, 34, 58])
        + "\n\nOne after another: noise:snr=5+reverb. A range is drawn from: noise:snr=5..20. For "
        "training\nclips -o 'augment.apply=noise:snr=5..20|pitch' (each gets one of the two). Sets "
        "of conditions:\n\n" + tabulate(sets, ["set", "views"], maxcolwidths=[None, 80])
    )


def _tasks() -> str:
    rows = [
        [name, task.version, " ".join((inspect.getdoc(task) or "").partition("\n\n")[0].split())]
        for name, task in TASKS.items()
    ]
    return tabulate(
        rows, ["task", "version", "what"], tablefmt="simple", maxcolwidths=[None, None, 70]
    )
