"""The parameters of SUPERB heads as those of one head, whether they are one or separate.

Separate heads side by side are one head: projectors below each other, and a classifier that is 0
between the groups,

    outputs = diag(C_1, C_2, ...) [P_1; P_2; ...] x + ...

It stays 0 where its gradient is masked, so that the one trains as they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from emopeft.downstream.heads.base import Head
from emopeft.downstream.heads.separate import SeparateHeads
from emopeft.downstream.heads.superb import SuperbHead

NAMES = ("projector.weight", "projector.bias", "classifier.weight", "classifier.bias")


def can_join(head: nn.Module) -> bool:
    """Whether a head is, or is made of, SUPERB heads as they were made, all of which train."""
    return all(p.requires_grad for p in head.parameters()) and all(
        type(part) is SuperbHead
        and {n for n, _ in part.named_parameters()} - {"featurizer.weights"} == set(NAMES)
        for part in _parts(head)
    )


def joined(head: Head) -> tuple[dict[str, Tensor], Tensor | None]:
    """Copies of the parameters of one head, by their names there; and where its classifier is not 0
    (outputs, hidden), None: anywhere."""
    parts = [dict(part.named_parameters()) for part in _parts(head)]
    parameters: dict[str, Tensor] = {}
    if head.featurizer.weights is not None:
        parameters["featurizer.weights"] = head.featurizer.weights.detach().clone()
    for name in NAMES:
        tensors = [part[name].detach() for part in parts]
        whole = torch.block_diag(*tensors) if name == "classifier.weight" else torch.cat(tensors)
        parameters[name] = whole.clone()
    if len(parts) == 1:
        return parameters, None
    return parameters, torch.block_diag(*(torch.ones_like(p["classifier.weight"]) for p in parts))


@torch.no_grad()
def put_joined(head: Head, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters of one head into the head or heads that they are of."""
    if head.featurizer.weights is not None:
        head.featurizer.weights.copy_(parameters["featurizer.weights"])
    row = column = 0  # of the classifier
    for part in _parts(head):
        own = dict(part.named_parameters())
        outputs, hidden = own["classifier.weight"].shape
        rows, columns = slice(row, row + outputs), slice(column, column + hidden)
        own["projector.weight"].copy_(parameters["projector.weight"][columns])
        own["projector.bias"].copy_(parameters["projector.bias"][columns])
        own["classifier.weight"].copy_(parameters["classifier.weight"][rows, columns])
        own["classifier.bias"].copy_(parameters["classifier.bias"][rows])
        row, column = rows.stop, columns.stop


def _parts(head: nn.Module) -> Sequence[nn.Module]:
    return list(head.heads) if isinstance(head, SeparateHeads) else [head]
