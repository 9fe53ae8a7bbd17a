"""What is done with the stages of a plan, as the recipe's section ``transfer`` says.

Of a transfer plan (stages and tests ``source`` and ``target``) a strategy says which stages are
trained, on what, whether the target's goes on from the source's end, and what is made of the ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from torch import Tensor

from emopeft.downstream.data.fold import Fold, Stage
from emopeft.downstream.data.rehearsal import rehearsed
from emopeft.downstream.data.transfer import PARTS, SOURCE, TransferKeys, has_domains
from emopeft.downstream.models.build import Blueprint
from emopeft.downstream.models.merging import added, averaged, method_of_sum
from emopeft.downstream.runs.session import Session, Setup
from emopeft.downstream.runs.source_fisher import source_fisher
from emopeft.downstream.runs.work import Work
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.anchors import check_head, hold
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError

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
        end: what the ends are made into: the method of the model that holds it, and its kept
            state; None: the last end is kept.
    """

    trained: Callable[[Stage, Stage], tuple[Stage, ...]]
    follows: bool = False
    end: Callable[[Session, Ends], tuple[str, dict[str, Tensor]]] | None = None


def _joint(source: Stage, target: Stage) -> tuple[Stage, ...]:
    """The training parts of both as one, chosen by the target's dev."""
    return (dataclasses.replace(target, train=(*source.train, *target.train)),)


def _average(session: Session, ends: Ends) -> tuple[str, dict[str, Tensor]]:
    model = session.setup.model(session.recipe.seeds[0])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    share = session.recipe.transfer.share
    return session.recipe.method, averaged(ends.source, ends.target, share, trained)


def _addition(session: Session, ends: Ends) -> tuple[str, dict[str, Tensor]]:
    model = session.setup.model(session.recipe.seeds[0])
    return _of_sum(session), added(ends.start, ends.source, ends.target, model)


def _of_sum(session: Session) -> str:
    """The method that has room for two updates of the run's, set up beside it: it patches the same
    places, so that all that is kept of the examples is the same."""
    own = session.setup
    method = method_of_sum(own.adaptation.methods)
    if method == own.adaptation.spec:
        return session.recipe.method
    if method not in session.setups:
        wide = dataclasses.replace(session.recipe, method=method)
        blueprint = Blueprint.of(session.upstream, wide, session.task.output_groups)
        adaptation = blueprint.adapt(session.recipe.seeds[0])
        session.setups[method] = Setup(blueprint, adaptation, own.examples)
    return method


STRATEGIES = {
    "sequential": Strategy(lambda source, target: (source, target), follows=True),
    "source": Strategy(lambda source, target: (source,)),
    "target": Strategy(lambda source, target: (target,)),
    "joint": Strategy(_joint),
    "average": Strategy(lambda source, target: (source, target), follows=True, end=_average),
    "addition": Strategy(lambda source, target: (source, target), end=_addition),
}


def strategy_of(keys: TransferKeys, fold: Fold) -> Strategy:
    """What is done with the stages of a fold; those of any other plan follow each other."""
    return STRATEGIES[keys.strategy if has_domains([fold]) else "sequential"]


def stages_of(keys: TransferKeys, fold: Fold, task: Task, seed: int) -> tuple[Stage, ...]:
    """The stages of a fold that are trained, in order, with what ``transfer`` changes of them."""
    frozen = tuple(PARTS[part] for part in keys.freeze)
    if not has_domains([fold]):
        last = fold.stages[-1]
        return (*fold.stages[:-1], dataclasses.replace(last, freeze=(*last.freeze, *frozen)))
    source, target = fold.stages
    source = dataclasses.replace(source, keys={**source.keys, **keys.source})
    target = dataclasses.replace(
        target, keys={**target.keys, **keys.target}, freeze=(*target.freeze, *frozen)
    )
    if keys.rehearsal:
        again = rehearsed(source.train, task, keys.rehearsal, seed)
        target = dataclasses.replace(target, train=(*target.train, *again))
    trained = STRATEGIES[keys.strategy].trained(source, target)
    return tuple(s for s in trained if keys.init_from is None or s.name != SOURCE)


def is_shared(fold: Fold, stage: Stage) -> bool:
    """Whether other folds and strategies may train the very same stage: a transfer's source."""
    return has_domains([fold]) and stage.name == SOURCE


def check_strategy(session: Session, fold: Fold) -> None:
    """What can be known to fail before anything is trained; raises UserError naming the key."""
    keys = session.recipe.transfer
    if keys.penalty == "ewc" and not has_domains([fold]):
        raise UserError(
            "transfer.penalty=ewc is measured on the source's clips, and protocol "
            f"{session.plan.protocol.name} has none; take l2sp or lwf"
        )
    if strategy_of(keys, fold) is STRATEGIES["addition"]:
        method_of_sum(session.setup.adaptation.methods)
        head = session.setup.model(session.recipe.seeds[0]).head
        if head.standardise and session.recipe.head.init == "random":
            raise UserError(
                "transfer.strategy=addition starts both stages with one head, and "
                "head.standardise fits a new one to each; set head.standardise=false"
            )


def hold_near(session: Session, work: Work, trainer: Trainer, before: State) -> None:
    """Hold a trainer that has not begun near where it starts, as ``transfer.penalty`` says.

    Args:
        trainer: of the last stage, at the end of the one before it. before: the kept state there.
    """
    keys = session.recipe.transfer
    if keys.penalty == "none":
        return
    assert keys.strength is not None
    weights = None
    if keys.penalty == "ewc":
        check_head(trainer.plain, before, keys.penalty)
        weights = source_fisher(session, work, before)
    hold(trainer, keys.penalty, keys.strength, before, keys.temperature, weights)
