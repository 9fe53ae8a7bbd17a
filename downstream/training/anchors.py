"""What holds a later stage near the end of the one before it: L2-SP, EWC, learning without
forgetting.

With theta what trains, theta* its values where the source stage ended, z(x) the outputs of an
utterance and z*(x) those at theta*, the loss L of an optimiser step becomes

    l2sp  L + strength / 2 sum_i (theta_i - theta*_i)^2
          (Li, Grandvalet and Davoine 2018, arXiv 1802.01483)
    ewc   L + strength / 2 sum_i F_i (theta_i - theta*_i)^2
          (Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3)
    lwf   L + strength sum_n w_n d(z(x_n), z*(x_n))
          (Li and Hoiem 2016, arXiv 1606.09282)

w_n: an utterance's share in L. F: the diagonal of the Fisher information, see `fisher`. d: what the
task says (`Task.apart`): for classes the divergence of the softened distributions, for ratings the
squared difference. In Li and Hoiem the old task has outputs of its own; here both stages have the
same, so old answers are asked of the very outputs that learn the new ones. Their cross-entropy
differs from the divergence by a number that does not train, and by the factor T^2.

theta* is known of a tensor that trained in the source stage. A head that was replaced has none:
l2sp leaves it out (Li et al. hold such a one to 0 instead, which is ``weight_decay``), and ewc and
lwf, which ask what the source's model answers, refuse.

All three start at 0 with gradient 0 (lwf beside dropout: nearly): the first step of the stage is
that of plain training.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from emopeft.downstream.feature_cache.examples import Examples
from emopeft.downstream.models.model import IN_HEAD, AdaptedModel
from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.evaluating import precise
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError

State = Mapping[str, Tensor]


# ---- near in the weights ------------------------------------------------------------------------


@dataclasses.dataclass
class Anchor:
    """strength / 2 sum_i F_i (theta_i - theta*_i)^2, whenever it is called; F = 1 where unset.

    Attributes:
        held: (parameter, its theta*, its F), all on one device.
    """

    strength: float
    held: list[tuple[nn.Parameter, Tensor, Tensor | None]]

    @classmethod
    def of(
        cls, model: AdaptedModel, source: State, strength: float, fisher: State | None = None
    ) -> Anchor:
        """Hold what trains in ``model`` to its values in ``source``, an earlier stage's kept state.

        Args:
            model: on its device. fisher: F by name, see `fisher`.
        """
        held = []
        for name, parameter in model.named_parameters():
            value = source.get(name)
            if not parameter.requires_grad or value is None or value.shape != parameter.shape:
                continue
            weight = None if fisher is None else fisher[name].to(parameter)
            held.append((parameter, value.to(parameter, copy=True), weight))
        return cls(strength, held)

    def __call__(self) -> Tensor:
        terms = [
            (distance**2 if weight is None else weight * distance**2).sum()
            for distance, weight in ((p - value, weight) for p, value, weight in self.held)
        ]
        return self.strength / 2 * torch.stack(terms).sum()


def fisher(
    model: AdaptedModel,
    examples: Examples,
    indices: Sequence[int],
    task: Task,
    accelerator: Accelerator,
    label: str = "",
) -> dict[str, Tensor]:
    """The diagonal of the Fisher information of some utterances, by parameter that trains.

        F_i = 1/N sum_n E_{y ~ p(y | x_n)} [(d log p(y | x_n) / d theta_i)^2]

    Of classes the expectation is taken over the model's own distribution (Kunstner, Balles and
    Hennig 2019, arXiv 1905.12558: labels in its place give another matrix); of ratings p is a
    Gaussian around the outputs; of several tasks p is their product. See `Task.scores`.

    The square is of each utterance's own gradient, so utterances go through the model one by one,
    in eval mode and float32, each with a backward pass for each of `Task.scores`.

    Args:
        model: on the accelerator's device, as the source stage ended.
        indices: into the examples: what the source stage was trained on.
        label: shown on the progress bar.
    """
    model.eval()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    mine = list(indices)[accelerator.process_index :: accelerator.num_processes]
    bar = tqdm(
        total=len(mine),
        desc=f"{label} Fisher information",
        unit="clip",
        disable=None if accelerator.is_main_process else True,
        leave=False,
    )
    with bar:
        for inputs in examples.prefetch([[i] for i in mine], accelerator.device):
            (outputs,) = precise(model(inputs))
            for score in task.scores(outputs.detach()):
                gradients = torch.autograd.grad(
                    outputs, list(parameters.values()), score, retain_graph=True, allow_unused=True
                )
                for total, gradient in zip(sums.values(), gradients, strict=True):
                    if gradient is not None:
                        total.addcmul_(gradient, gradient)
            bar.update()
    whole = {name: accelerator.reduce(total, "sum") for name, total in sums.items()}
    return {name: total / len(indices) for name, total in whole.items()}


# ---- near in the outputs ------------------------------------------------------------------------


class Distilled(Task):
    """A task whose utterances also have a teacher's outputs: its loss and strength times how far
    the outputs are from those. A target is the task's own, then the teacher's outputs."""

    def __init__(self, task: Task, strength: float, temperature: float):
        self.task, self.strength, self.temperature = task, strength, temperature

    @property
    def additive(self) -> bool:
        return self.task.additive

    def loss(self, outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        own, teacher = targets.tensor_split([len(self.task.target_names)], -1)
        apart = self.task.apart(outputs, teacher, self.temperature)
        return self.task.loss(outputs, own, weights) + self.strength * (apart * weights).sum(-1)


def taught(examples: Examples, rows: Sequence[int], teacher: Tensor) -> Examples:
    """The examples with a teacher's outputs (len(rows), outputs) behind their targets; of all
    others these are NaN."""
    behind = examples.targets.new_full((len(examples.targets), teacher.shape[1]), torch.nan)
    behind[list(rows)] = teacher.to(behind)
    wider = copy.copy(examples)
    wider.targets = torch.cat([examples.targets, behind], 1)
    return wider


# ---- a trainer that is held ---------------------------------------------------------------------


def check_head(model: AdaptedModel, source: State, penalty: str) -> None:
    """Raises UserError where the head is not the source's."""
    head = {f"{IN_HEAD}.{n}": t.shape for n, t in model.head.state_dict().items()}
    if any(name not in source or source[name].shape != size for name, size in head.items()):
        raise UserError(
            f"transfer.penalty={penalty} asks the source's head, which was replaced because the "
            "outputs differ; take l2sp"
        )


def hold(
    trainer: Trainer,
    penalty: str,
    strength: float,
    source: State,
    temperature: float = 2.0,
    weights: State | None = None,
) -> None:
    """Hold a trainer that has not begun, and whose model stands where ``source`` ended.

    An interrupted stage is held to the same numbers: they are made of ``source`` again, before its
    progress is put back.

    Args:
        penalty: none, l2sp, ewc or lwf. source: the kept state that the source stage ended with.
        temperature: of lwf. weights: of ewc, `fisher`.

    Raises:
        UserError: nothing that trains was trained in the source stage, or the source's head, which
            ewc and lwf ask, is not there.
    """
    if penalty in ("ewc", "lwf"):
        check_head(trainer.plain, source, penalty)
    if penalty in ("l2sp", "ewc"):
        trainer.gradient.anchor = anchor = Anchor.of(trainer.plain, source, strength, weights)
        if not anchor.held:
            raise UserError(
                f"transfer.penalty={penalty} holds nothing: all that trains in this stage is new; "
                "set it to none, or freeze less in transfer.freeze"
            )
    elif penalty == "lwf":
        rows = sorted({i for way in trainer.ways for i in way})
        wider = taught(trainer.examples, rows, trainer.outputs(rows))
        trainer.gradient.learn(Distilled(trainer.task, strength, temperature), wider)
