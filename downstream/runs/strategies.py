"""What is done with the stages of a plan, as the recipe's section ``transfer`` says.

Of a transfer plan (stages and tests ``source`` and ``target``) a strategy says which stages are
trained, on what, whether the target's goes on from the source's end, and what is made of the ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from emopeft.downstream.data.fold import Fold, Stage
from emopeft.downstream.data.transfer import PARTS, SOURCE, TransferKeys, has_domains
from emopeft.downstream.tasks.base import Task
from emopeft.errors import UserError

if TYPE_CHECKING:
    from emopeft.downstream.runs.session import Session
    from emopeft.downstream.runs.work import Work
    from emopeft.downstream.training.trainer import Trainer

State = Mapping[str, Tensor]  # `AdaptedModel.kept_state`


@dataclasses.dataclass(frozen=True)
class Ends:
    """Kept states: of the new model, and of the ends of both stages."""

    start: State
    source: State
    target: State


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How the two stages are used.

    Attributes:
        trained: the stages that are trained, in order, of the source's and the target's.
        follows: whether the target's starts where the source's ended, else as new as that did.
        end: what the ends are made into; None: the last one is kept.
    """

    trained: Callable[[Stage, Stage], tuple[Stage, ...]]
    follows: bool = False
    end: Callable[[TransferKeys, Ends], dict[str, Tensor]] | None = None


def _joint(source: Stage, target: Stage) -> tuple[Stage, ...]:
    """The training parts of both as one, chosen by the target's dev."""
    return (dataclasses.replace(target, train=(*source.train, *target.train)),)


def _not_yet(keys: TransferKeys, ends: Ends) -> dict[str, Tensor]:
    raise UserError(f"transfer.strategy={keys.strategy} is not made yet; take sequential")


STRATEGIES = {
    "sequential": Strategy(lambda source, target: (source, target), follows=True),
    "source": Strategy(lambda source, target: (source,)),
    "target": Strategy(lambda source, target: (target,)),
    "joint": Strategy(_joint),
    "average": Strategy(lambda source, target: (source, target), follows=True, end=_not_yet),
    "addition": Strategy(lambda source, target: (source, target), end=_not_yet),
}


def strategy_of(keys: TransferKeys, fold: Fold) -> Strategy:
    """What is done with the stages of a fold; those of any other plan follow each other."""
    return STRATEGIES[keys.strategy if has_domains([fold]) else "sequential"]


def stages_of(keys: TransferKeys, fold: Fold, task: Task, seed: int) -> tuple[Stage, ...]:
    """The stages of a fold that are trained, in order, with what ``transfer`` changes of them."""
    if keys.penalty != "none" or keys.rehearsal:
        raise UserError("transfer.penalty and transfer.rehearsal are not made yet; leave them out")
    frozen = tuple(PARTS[part] for part in keys.freeze)
    if not has_domains([fold]):
        last = fold.stages[-1]
        return (*fold.stages[:-1], dataclasses.replace(last, freeze=(*last.freeze, *frozen)))
    source, target = fold.stages
    source = dataclasses.replace(source, keys={**source.keys, **keys.source})
    target = dataclasses.replace(
        target, keys={**target.keys, **keys.target}, freeze=(*target.freeze, *frozen)
    )
    trained = STRATEGIES[keys.strategy].trained(source, target)
    return tuple(s for s in trained if keys.init_from is None or s.name != SOURCE)


def is_shared(fold: Fold, stage: Stage) -> bool:
    """Whether other folds and strategies may train the very same stage: a transfer's source."""
    return has_domains([fold]) and stage.name == SOURCE


def hold_near(session: Session, work: Work, trainer: Trainer, before: State) -> None:
    """Hold a trainer that has not begun near where it starts, as ``transfer.penalty`` says.

    Args:
        trainer: of the last stage, at the end of the one before it. before: the kept state there.
    """
