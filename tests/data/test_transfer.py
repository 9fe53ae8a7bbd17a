"""The recipe's section ``transfer``: what goes together, and what of it decides a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from emopeft.downstream.data.recipe import build, validate
from emopeft.downstream.data.resolve import stage_keys
from emopeft.downstream.data.transfer import TransferKeys, check_folds, decisions, has_domains
from emopeft.errors import UserError
from tests.data.plans import staged

ONE = {"name": "source", "train": ["a"], "dev": ["b"]}
TWO = {"name": "target", "train": ["c"], "dev": ["d"]}


def keys(**transfer: Any) -> Any:
    more = {k: v for k, v in transfer.items() if "." in k}
    own = {f"transfer.{k}": v for k, v in transfer.items() if "." not in k}
    return build({"method": "lora+ba+ws", **own, **more})


@pytest.mark.parametrize(
    ("transfer", "says"),
    [
        ({"strategy": "both"}, "unknown value of transfer.strategy 'both'"),
        ({"freeze": ["lora.C"]}, r"unknown part in transfer.freeze 'lora.C'.*lora.A"),
        ({"freeze": ["wg"]}, "the method lora\\+ba\\+ws has no wg"),
        ({"freeze": ["ba", "ba"]}, "names a part twice"),
        ({"freeze": ["ba"], "strategy": "source"}, "transfer.strategy is source: take sequential"),
        ({"freeze": ["ba"], "strategy": "addition"}, "transfer.strategy is addition"),
        ({"rehearsal": 3, "strategy": "joint"}, "transfer.rehearsal is for a stage that goes on"),
        ({"init_from": "runs/a", "strategy": "target"}, "transfer.init_from is for a stage"),
        ({"penalty": "l2sp"}, "give both, a penalty and its strength"),
        ({"strength": 0.1}, "give both, a penalty and its strength"),
        ({"penalty": "l2sp", "strength": 0.0}, "transfer.strength = 0.0 must be greater than 0"),
        ({"penalty": "l2sp", "strength": 1.0, "temperature": 3.0}, "is for transfer.penalty=lwf"),
        ({"share": 0.3}, "transfer.share is for transfer.strategy=average"),
        ({"source": {"lr": 1e-3}, "strategy": "joint"}, "there is none of its own"),
        ({"source": {"lr": 1e-3}, "init_from": "runs/a"}, "there is none of its own"),
        ({"target": {"lr": 1e-3}, "strategy": "source"}, "there is none of its own"),
        ({"target": {"rate": 1e-3}}, "unknown key in transfer.target 'train.rate'"),
        ({"source": {"steps": 0}}, "train.steps=0 trains nothing"),
        ({"target": {"steps": 0}, "strategy": "target"}, "train.steps=0 trains nothing"),
        ({"init_from": "runs/a", "head.init": "probe"}, "both say what the head starts as"),
    ],
)
def test_what_does_not_go_together(transfer: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        validate(keys(**transfer))


def test_keys_of_a_stage() -> None:
    recipe = validate(keys(target={"steps": 0}, source={"lr": "1e-4", "steps": 7}))
    source = stage_keys(recipe, recipe.transfer.source, "transfer.source", False)
    assert (source.lr, source.steps, source.epochs) == (1e-4, 7, None)
    assert dataclasses.replace(source, lr=1e-3, steps=None, epochs=30) == recipe.train
    with pytest.raises(UserError, match="train.steps=0 trains nothing"):
        validate(build({"train.steps": 0, "train.epochs": None}))


def test_where_it_says_something_there_must_be_two_stages() -> None:
    transfer = staged({"target": ["e"], "source": ["f"]}, ONE, TWO)
    plain = staged({"test": ["e"]}, ONE | {"name": "train"})
    other = staged({"target": ["e"], "source": ["f"]}, ONE, TWO | {"name": "second"})
    assert [has_domains(p.folds) for p in (transfer, plain, other)] == [True, False, False]
    said = keys(strategy="joint").transfer
    check_folds(said, transfer.folds, "p")
    for plan in (plain, other):
        check_folds(TransferKeys(), plan.folds, "p")
        with pytest.raises(UserError, match="transfer.strategy is for a plan with the stages"):
            check_folds(said, plan.folds, "p")
        with pytest.raises(UserError, match="transfer.freeze is for a plan"):
            check_folds(keys(freeze=["ba"]).transfer, plan.folds, "p")
    going_on = keys(freeze=["ba"], init_from="runs/a", penalty="l2sp", strength=1.0).transfer
    check_folds(going_on, plain.folds, "p")
    with pytest.raises(UserError, match="transfer.rehearsal is for a plan"):
        check_folds(keys(rehearsal=2, init_from="runs/a").transfer, plain.folds, "p")


def test_what_is_as_always_decides_nothing() -> None:
    assert decisions(dataclasses.asdict(TransferKeys())) == {}
    said = keys(freeze=["ba"], rehearsal=2).transfer
    assert decisions(dataclasses.asdict(said)) == {"freeze": ["ba"], "rehearsal": 2}
