"""Several SUPERB heads of one shape as one computation on time means, gradients by hand.

With frozen states a head's outputs are affine in the means f_s (states s = 0 .. S-1):

    outputs = C (P sum_s w_s f_s + p) + c,    w = softmax(a)

so a head acts through the small matrix A = C P (outputs x width), and with the gradient d of the
loss at the outputs, which the task gives, its gradients are, summed over the batch,

    G = sum d (sum_s w_s f_s)^T      dP = C^T G          dp = C^T sum d
    dC = G P^T + (sum d) p^T         dc = sum d
    dw_s = sum d^T A f_s             da = w * (dw - w^T dw)

which is what autograd computes, in another order of sums: a sixth of the operations of
multiplying every utterance with P. The batch's means are read twice, by two matrix products that
serve all heads at once. The gradient of P has the rank of the outputs, so its norm, for clipping,
is known before it is written out: |C^T G|^2 = sum (C C^T) * (G G^T).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.heads.base import Head
from emopeft.downstream.models.joined_heads import joined

ALIGNMENT = 16  # floats: rows begin on cache lines
LARGE = "projector.weight"  # stands first in a row
FUSED = ("cpu", "cuda")  # devices where torch's optimisers are one kernel
DEFAULTS: dict[str, Any] = {
    "amsgrad": False, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "maximize": False,
}  # fmt: skip

Loss = Callable[[Tensor], tuple[Tensor, Tensor]]


class StackedHeads:
    """Equal copies of a head, one per learning rate, that then train on the same batches.

    Args:
        head: SUPERB's, or separate ones of this kind, newly initialised; its featurizer may be a
            weighted sum or the last state.
        copies: how many.
        keys: optimiser, weight decay and clipping.

    The parameters are the rows of one matrix: (copies, numbers); ``views`` gives them by the
    names that they have in the head.
    """

    def __init__(self, head: Head, copies: int, keys: TrainKeys):
        self.keys = keys
        self.skip = head.featurizer.skip
        parameters, self.mask = joined(head)
        parameters = {LARGE: parameters.pop(LARGE), **parameters}
        self.shapes = {name: p.shape for name, p in parameters.items()}
        count = sum(p.numel() for p in parameters.values())
        row = torch.zeros(-(-count // ALIGNMENT) * ALIGNMENT, device=parameters[LARGE].device)
        for name, view in self._views(row[None]).items():
            view[0] = parameters[name]
        self._set(row.repeat(copies, 1), *(torch.zeros(2, copies, len(row), device=row.device)))
        self.steps = [torch.zeros((), device=row.device) for _ in range(copies)]

    def _set(self, rows: Tensor, first: Tensor, second: Tensor) -> None:
        """Take parameters and Adam's two moments, each (copies, numbers)."""
        self.rows, self.first, self.second = rows, first, second
        self.views = self._views(rows)
        self._make_room()
        self.small_views = self._views(self.small, {LARGE})
        self.folded = torch.bmm(self.views["classifier.weight"], self.views[LARGE])  # A

    def _make_room(self) -> None:
        """For the gradients of one copy, written and used while they are in the processor's cache,
        and of all copies for those of all but P."""
        rows = self.rows
        self.gradient = torch.zeros_like(rows[0]) if len(rows) else rows.new_zeros(0)
        self.small = rows.new_zeros(len(rows), rows.shape[1] - self.shapes[LARGE].numel())

    def _views(self, rows: Tensor, without: Collection[str] = ()) -> dict[str, Tensor]:
        views, begin = {}, 0
        for name, shape in self.shapes.items():
            if name in without:
                continue
            size = shape.numel()
            views[name] = rows[:, begin : begin + size].unflatten(1, shape)
            begin += size
        return views

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, which: list[int]) -> None:
        """Drop all copies but these."""
        self._set(self.rows[which], self.first[which], self.second[which])
        self.steps = [self.steps[i] for i in which]

    def parameters_of(self, copy: int) -> dict[str, Tensor]:
        """Clones of one copy's parameters, as `joined` names them."""
        return {name: view[copy].clone() for name, view in self.views.items()}

    def state(self) -> dict[str, Tensor]:
        """All that training needs to go on."""
        return {
            "rows": self.rows, "first": self.first, "second": self.second,
            "steps": torch.stack(self.steps) if self.steps else torch.zeros(0),
        }  # fmt: skip

    def load(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave."""
        device = self.rows.device
        self._set(*(state[name].to(device) for name in ("rows", "first", "second")))
        self.steps = list(state["steps"].to(device).clone().unbind())

    # ---- computation ------------------------------------------------------------------------

    def _mixing(self) -> Tensor:
        """Weights of the states: (copies, states)."""
        weights = self.views.get("featurizer.weights")
        if weights is None:
            return torch.ones(len(self), 1, device=self.rows.device, dtype=self.rows.dtype)
        return torch.softmax(weights, -1)

    def _offset(self) -> Tensor:
        """C p + c: (copies, outputs)."""
        v = self.views
        inner = torch.bmm(v["classifier.weight"], v["projector.bias"].unsqueeze(-1))
        return inner.squeeze(-1) + v["classifier.bias"]

    def outputs(self, means: Tensor) -> Tensor:
        """(utterances, states, width) to (copies, utterances, outputs)."""
        pooled = torch.matmul(self._mixing(), means).transpose(0, 1)  # (copies, utterances, width)
        return torch.baddbmm(self._offset().unsqueeze(1), pooled, self.folded.transpose(1, 2))

    def step(self, means: Tensor, loss: Loss, rates: list[float]) -> Tensor:
        """One optimiser step of every copy on one batch.

        Args:
            means: (batch, states, width).
            loss: of the outputs of all copies on this batch (copies, batch, outputs): the losses
                (copies,) and their gradients at the outputs; see `Task.gradient`.
            rates: the learning rate of each copy.

        Returns:
            the losses before the step: (copies,).
        """
        losses, left, right = self._backward(means[None], loss)
        size = self.shapes[LARGE].numel()
        large = self.gradient[:size].view(self.shapes[LARGE])
        C, P = self.views["classifier.weight"], self.views[LARGE]
        for j, rate in enumerate(rates):
            torch.mm(left[j].T, right[j], out=large)
            self.gradient[size:].copy_(self.small[j])
            self._update(j, rate)
            torch.mm(C[j], P[j], out=self.folded[j])
        return losses

    def _backward(self, means: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (copies,), and the factors of P's gradient: C (copies, outputs, hidden) and G.

        The other gradients are left in ``small``. All of them are clipped, C for P's.

        Args:
            means: of each group's batch (groups, batch, states, width).
            loss: as for `step`, of the copies of all groups, group after group.
        """
        v, g = self.views, self.small_views
        groups, batch, states, width = means.shape
        copies, outputs, _ = self.folded.shape
        per_group = copies // groups
        mixing = self._mixing()
        shared = mixing.view(groups, per_group, -1).mT.contiguous()[:, None, :, :, None]
        flat = means.view(groups, batch * states, width)
        # What each state alone would add: (groups, batch, states, copies, outputs).
        folded = self.folded.view(groups, -1, width)
        each = _product(flat, folded.mT).view(groups, batch, states, per_group, outputs)
        summed = (each * shared).sum(2) + self._offset().view(groups, 1, per_group, outputs)
        losses, error = loss(summed.transpose(1, 2).flatten(0, 1))
        # d: (groups, batch, copies, outputs).
        error = error.view(groups, per_group, batch, outputs).transpose(1, 2).contiguous()

        spread = (error[:, :, None] * shared).reshape(groups, batch * states, -1)
        right = _product(spread.mT, flat).view(copies, outputs, width)  # G
        total = error.sum(1).view(copies, outputs)
        C = v["classifier.weight"]
        g["classifier.bias"].copy_(total)
        outer = total.unsqueeze(-1) * v["projector.bias"].unsqueeze(1)
        g["classifier.weight"].copy_(torch.bmm(right, v[LARGE].mT) + outer)
        if self.mask is not None:
            g["classifier.weight"].mul_(self.mask)
        g["projector.bias"].copy_(torch.bmm(total.unsqueeze(1), C).squeeze(1))
        if "featurizer.weights" in g:
            by_state = (error[:, :, None] * each).sum((1, 4)).mT.reshape(copies, states)  # dw
            inner = (mixing * by_state).sum(-1, keepdim=True)
            g["featurizer.weights"].copy_(mixing * (by_state - inner))
        if self.keys.clip is None:
            return losses, C, right
        square = (torch.bmm(C, C.mT) * torch.bmm(right, right.mT)).sum((1, 2)).clamp_min(0)
        norm = (square + self.small.square().sum(1)).sqrt()
        scale = (self.keys.clip / (norm + 1e-6)).clamp_max(1.0)
        self.small.mul_(scale.unsqueeze(-1))
        return losses, C * scale.view(-1, 1, 1), right

    def _update(self, j: int, rate: float) -> None:
        """The optimiser on copy ``j``, as torch's own with default betas and epsilon."""
        keys = self.keys
        if keys.optimizer == "sgd":
            if keys.weight_decay:
                self.gradient.add_(self.rows[j], alpha=keys.weight_decay)
            self.rows[j].sub_(self.gradient, alpha=rate)
            return
        update = adam if keys.optimizer == "adam" else adamw
        update(
            [self.rows[j]], [self.gradient], [self.first[j]], [self.second[j]], [],
            [self.steps[j]], fused=self.rows.device.type in FUSED, lr=rate,
            weight_decay=keys.weight_decay, **DEFAULTS,
        )  # fmt: skip


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Of two stacks of matrices; of one pair by the product that is quicker on a processor."""
    if len(left) == 1:
        return torch.mm(left[0], right[0])[None]
    return torch.bmm(left, right)
