"""A finished run takes the place of the source's stage: transfer.init_from, ``--init-from RUN``.

A fold goes on from the run's fold of the same name and seed, or from its only one. Nobody who is
tested may have been heard there: speakers and audio of the tests are looked for in what that fold
was trained and chosen on. The last layer of the head is new where the two predict other things, and
all else of it goes on.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from emopeft.downstream.data.recipe import Recipe
from emopeft.downstream.data.rows import UNSCORED
from emopeft.downstream.models.checkpoint import TENSORS, read_adapter
from emopeft.downstream.models.model import IN_HEAD
from emopeft.downstream.protocols.rules import some
from emopeft.downstream.records.folds import FoldResult, fold_folder, read_facts, read_fold
from emopeft.downstream.runs.checkpoints import fold_folders
from emopeft.errors import UserError
from emopeft.files import digest, file_digest
from emopeft.upstream.identity import same_base

if TYPE_CHECKING:
    from emopeft.downstream.runs.session import Session
    from emopeft.downstream.runs.work import Work

logger = logging.getLogger(__name__)

CLASSIFIER = "classifier"  # the last layer of every head
TASKS = ("classes", "dimensions", "parts", "group")  # what says which outputs a task has


@dataclasses.dataclass(frozen=True)
class Origin:
    """A checkpoint to go on from: its tensors, and what the record says of it."""

    state: dict[str, Tensor]
    facts: dict[str, Any]


def origin_identity(recipe: Recipe) -> dict[str, Any]:
    """What decides it, for a run's identity: which run (equal identities give equal results), and
    which checkpoint, where there is one for all folds.

    Each fold's facts hold the checkpoint that it went on from; nothing where there is none.
    """
    if recipe.transfer.init_from is None:
        return {}
    folders = fold_folders(Path(recipe.transfer.init_from))
    facts = [read_facts(folder) for folder in folders]
    ids = {digest(of.identity) for of in facts if of is not None}
    if None in facts or len(ids) != 1:
        raise UserError(
            f"{recipe.transfer.init_from} is not one run: each fold needs its fold.json, and all "
            "the same identity; give one fold's folder"
        )
    origin = {"id": ids.pop()}
    if len(folders) == 1:
        origin["checkpoint"] = file_digest(folders[0] / TENSORS)
    return {"origin": origin}


def origin_of(session: Session, work: Work) -> Origin | None:
    """The checkpoint that a fold goes on from; None where it starts by itself.

    Raises UserError as `origin_facts` does.
    """
    facts = origin_facts(session, work)
    if facts is None:
        return None
    state = read_adapter(_place(session, work))[0]
    if facts["head"] == "replaced":
        state = {name: tensor for name, tensor in state.items() if not _in_classifier(name)}
    return Origin(state, facts)


def origin_facts(session: Session, work: Work) -> dict[str, Any] | None:
    """What the record says of where a fold goes on from; None where it starts by itself.

    Raises:
        UserError: there is no such fold, it is of another encoder, has another head, was itself
            gone on from another run, or has heard who is tested here.
    """
    if session.recipe.transfer.init_from is None:
        return None
    place = _place(session, work)
    result = read_fold(place)
    if result is None or not result.finished:
        raise UserError(f"{place} is no finished fold; finish that run, or give another one")
    config = read_adapter(place)[1]
    facts = result.facts
    if facts.transfer is not None and facts.transfer.origin is not None:
        raise UserError(
            f"{place} itself went on from the run {facts.transfer.origin.run}, whose speakers it "
            "does not name: go on from a run that began by itself"
        )
    noted = ("weights", "loader", "options", "code")
    recorded = {k: config["upstream"][k] for k in noted if config["upstream"][k] is not None}
    if wrong := same_base(recorded, session.upstream):
        raise UserError(f"{place} was trained on another encoder than {session.upstream.name} is "
                        f"here: {wrong}; take that one with -u")  # fmt: skip
    _check_heard(session, work, place, result)
    return {
        "run": facts.run,
        "id": digest(facts.identity),
        "protocol": facts.plan.protocol,
        "plan": facts.plan.hash,
        "fold": facts.fold,
        "seed": facts.seed,
        "checkpoint": file_digest(place / TENSORS),
        "head": _head(session, place, config),
    }


def check_origin(session: Session, place: Path, result: FoldResult) -> None:
    """That a finished fold went on from the checkpoint that is there now; raises UserError."""
    transfer, run = result.facts.transfer, session.recipe.transfer.init_from
    if run is None or transfer is None or transfer.origin is None:
        return
    now = _place_of(Path(run), result.facts.fold, result.facts.seed)
    if file_digest(now / TENSORS) != transfer.origin.checkpoint:
        raise UserError(
            f"{place} went on from another checkpoint than {now} holds now; delete it to train "
            "this fold again"
        )


def _place(session: Session, work: Work) -> Path:
    """The folder of the fold that this one goes on from."""
    return _place_of(Path(str(session.recipe.transfer.init_from)), work.fold.name, work.seed)


def _place_of(run: Path, fold: str, seed: int) -> Path:
    folders = fold_folders(run)
    same = fold_folder(run, fold, seed)
    if same in folders:
        return same
    if len(folders) > 1:
        names = [folder.name for folder in folders]
        raise UserError(
            f"{run} has no {same.name} to go on from, and several others ({some(names)}): choose "
            f"one for all folds with --init-from {run / names[0]}"
        )
    return folders[0]


def _check_heard(session: Session, work: Work, place: Path, result: FoldResult) -> None:
    """That nobody and nothing that is tested was trained on or chosen by."""
    heard = [row for row in result.examples if row.part in ("train", "dev")]
    speakers = {row.speaker for row in heard} - {""}
    audio = {row.audio for row in heard} - {""}
    tested = [r for r in session.plan.rows(work.fold) if r.part in ("test", UNSCORED)]
    if known := sorted({row.speaker for row in tested} & speakers):
        raise UserError(
            f"{place} was trained on or chosen by speaker {some(known)}, who is tested in fold "
            f"{work.fold.name}: go on from a fold that has not heard them"
        )
    if same := sorted(row.id for row in tested if row.audio in audio):
        raise UserError(
            f"{place} was trained on or chosen by the audio of {some(same)}, tested in fold "
            f"{work.fold.name}: go on from a fold that has not heard it"
        )


def _head(session: Session, place: Path, config: Mapping[str, Any]) -> str:
    """Whether the head goes on as it is, or with a new last layer ("kept", "replaced")."""
    recorded, own = config["head"], session.setup.blueprint.head
    new = _outputs(config["task"]) != _outputs(session.task.describe())
    for name, value in own.items():
        if recorded[name] != value and name != "dropout" and not (new and name == "outputs"):
            raise UserError(
                f"{place} has a head with {name} {recorded[name]}, and here it is {value}: set "
                "section head as that run had it"
            )
    if not new:
        return "kept"
    logger.warning(
        "the last layer of the head is new: %s predicts %s, and %s is asked for", place,
        _words(config["task"]), _words(session.task.describe()),
    )  # fmt: skip
    return "replaced"


def _outputs(task: Mapping[str, Any]) -> Any:
    """What the outputs of a task are, by its description."""
    found = {name: task[name] for name in TASKS if name in task}
    parts = [_outputs(part) for part in found.pop("parts", [])]
    return found | {"parts": parts} if parts else found


def _words(task: Mapping[str, Any]) -> str:
    names = task.get("classes") or [row["name"] for row in task.get("dimensions", [])]
    return ", ".join(names) or str(task.get("name"))


def _in_classifier(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == IN_HEAD and CLASSIFIER in parts
