"""Two trained states of one model as one: averaged, or their updates added.

Of tensors that train, theta_0 is where both stages started, theta_1 and theta_2 where they ended:

    average    (1 - share) theta_1 + share theta_2       WiSE-FT (Wortsman et al. 2022,
                                                         arXiv 2109.01903, eq. 1)
    addition   theta_0 + (theta_1 - theta_0) + (theta_2 - theta_0)     task arithmetic (Ilharco et
                                                         al. 2023, arXiv 2212.04089)

The average is of the tensors of a checkpoint, as they are. Of LoRA these are the factors, and the
product of averaged factors is not the average of the products: it lacks
share (1 - share) (B_2 - B_1)(A_2 - A_1). It is meant for two stages of which the second went on
from the first, so that this is small; and with share 0 and 1 it is the one and the other, exactly.

The sum is of updates, not of factors: of LoRA W_0 + B_1 A_1 + B_2 A_2, exactly, in a model of twice
the rank and the same scaling; of a bottleneck adapter BA_1(h) + BA_2(h), in one of twice the width.
Where it is the tensors that add up (pretrained weights, gates, the head and its weighted sum), the
model stays as it is. A layer's own sum is exact; over several layers each update meets states that
the other has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from emopeft.downstream.models.model import IN_HEAD, AdaptedModel
from emopeft.errors import UserError
from emopeft.peft_modules.base import Method, canonical

State = Mapping[str, Tensor]


def averaged(
    first: State, second: State, share: float, trained: Collection[str]
) -> dict[str, Tensor]:
    """The average of two kept states, ``share`` of it the second's.

    Args:
        trained: the names of what trained; all else must be equal.

    Raises:
        UserError: the states are not of one model.
    """
    _check_alike(first, second, trained, "averaged")
    # torch's lerp gives the ends themselves at 0 and 1, and an equal tensor for two equal ones.
    return {
        name: torch.lerp(tensor.double(), second[name].double(), share).to(tensor.dtype)
        if name in trained
        else tensor.clone()
        for name, tensor in first.items()
    }


def method_of_sum(methods: Sequence[Method]) -> str:
    """The method that has room for two updates of ``methods``; raises UserError where two of one
    cannot be added."""
    return canonical([method.doubled() for method in methods])


def added(start: State, first: State, second: State, model: AdaptedModel) -> dict[str, Tensor]:
    """The sum of the updates that two stages made from one start.

    Args:
        start: the kept state that both started with. first, second: where they ended.
        model: of the same method and head, with nothing frozen: it knows whose a tensor is.

    Returns:
        the kept state of a model of `method_of_sum`.

    Raises:
        UserError: the states are not of one model, or the start is a trained one.
    """
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for end in (first, second):
        _check_alike(start, end, trained, "added")
    owners = _owners(model)
    state = {}
    for name, tensor in start.items():
        if name not in trained:
            state[name] = tensor.clone()
            continue
        ends = [end[name].double() for end in (start, first, second)]
        state[name] = owners.get(name, Method()).added(name, *ends).to(tensor.dtype)
    return state


def _owners(model: AdaptedModel) -> dict[str, Method]:
    """The method whose a tensor is, by its name in the kept state; those of the head itself have
    none."""
    parts = model.adaptation.parts
    owners = {f"upstream.{name}": part.method for part in parts for name in part.sizes}
    by_name = {method.name: method for method in model.methods}
    in_head = model.head.patched.items()
    return owners | {f"{IN_HEAD}.{n}": by_name[of] for of, names in in_head for n in names}


def _check_alike(first: State, second: State, trained: Collection[str], what: str) -> None:
    if odd := sorted(first.keys() ^ second.keys()):
        raise UserError(
            f"the stages' states cannot be {what}: only one of them holds {odd[0][:200]}; give "
            "both stages one method"
        )
    for name, tensor in first.items():
        if tensor.shape != second[name].shape:
            raise UserError(
                f"the stages' states cannot be {what}: {name} has shape {tuple(tensor.shape)} in "
                f"one and {tuple(second[name].shape)} in the other; give both one method and the "
                "same classes"
            )
        if name not in trained and not torch.equal(tensor, second[name].to(tensor.device)):
            raise UserError(
                f"the stages' states cannot be {what}: {name} did not train and differs between "
                "them; both must start from one state"
            )
