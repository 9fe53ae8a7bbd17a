"""What holds a later stage to the one before: every term by hand, in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emopeft.downstream.tasks.base import Task
from emopeft.downstream.training.anchors import hold
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError
from tests.tasks.toy import Together
from tests.training.test_whole_batch import (
    COUNT,
    SECONDS,
    TASKS,
    gradients,
    information,
    trainer_of,
)

WEIGHTS = torch.linspace(0.5, 2, COUNT)
SHARE = (WEIGHTS.double() / WEIGHTS.double().sum()).numpy()
EVERY = list(range(COUNT))


def moved(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What trains, after steps in some direction: everywhere away from where it began."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter += 0.3 * torch.randn(
                parameter.shape, generator=draw, dtype=torch.float64
            )  # fmt: skip
    return trainer.plain.trainable_state()


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def into_classifier(trainer: Trainer) -> tuple[np.ndarray, np.ndarray]:
    """What the classifier is given (utterances, hidden), and its outputs, in eval mode."""
    seen: list[torch.Tensor] = []
    hook = trainer.plain.head.classifier.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].detach())
    )
    trainer.plain.eval()
    with torch.no_grad():
        z = torch.cat([trainer.plain(trainer.examples.batch([i], "cpu")) for i in EVERY])
    hook.remove()
    return torch.cat(seen).numpy(), z.numpy()


@pytest.mark.parametrize("penalty", ["l2sp", "ewc"])
def test_held_by_its_weights(penalty: str) -> None:
    """The gradient grows by strength F (theta - theta*), on one micro-batch and on three."""
    for count in (1, 3):
        plain = trainer_of(TASKS["both"], SECONDS[count], weights=WEIGHTS)
        moved(plain)
        wanted = gradients(plain)
        trainer = trainer_of(TASKS["both"], SECONDS[count], weights=WEIGHTS)
        source = trainer.plain.kept_state()
        weights = None
        if penalty == "ewc":
            weights = {n: (p.detach() ** 2 + 0.1) for n, p in trainer.plain.named_parameters()}
        hold(trainer, penalty, 0.7, source, weights=weights)
        assert trainer.gradient.anchor().item() == 0
        now = moved(trainer)
        by_hand = 0.0
        for name, gradient in gradients(trainer).items():
            f = 1.0 if weights is None else weights[name].numpy()
            away = now[name].numpy() - source[name].numpy()
            by_hand += (f * away**2).sum()
            np.testing.assert_allclose(
                gradient.numpy(), wanted[name].numpy() + 0.7 * f * away, rtol=1e-9, atol=1e-13
            )
        assert trainer.gradient.anchor().item() == pytest.approx(0.35 * by_hand, rel=1e-12)
        assert float(trainer.loss_sum) == float(plain.loss_sum)  # what is shown is the task's


def test_held_by_what_trained_before() -> None:
    """A tensor that is new, of another shape or frozen is not held."""
    trainer = trainer_of(TASKS["sum"], 1e9)
    source = trainer.plain.kept_state()
    source["head.classifier.weight"] = source["head.classifier.weight"][:1]
    del source["head.projector.bias"]
    trainer.plain.head.classifier.bias.requires_grad_(False)
    hold(trainer, "l2sp", 1.0, source)
    held = {id(p) for p, _, _ in trainer.gradient.anchor.held}  # type: ignore[union-attr]
    left = {n for n, p in trainer.plain.named_parameters() if p.requires_grad and id(p) not in held}
    assert left == {"head.classifier.weight", "head.projector.bias"}
    with pytest.raises(UserError, match="holds nothing"):
        hold(trainer, "l2sp", 1.0, {})
    with pytest.raises(UserError, match="asks the source's head, which was replaced"):
        hold(trainer, "lwf", 1.0, source)


def test_fisher_by_hand() -> None:
    """Of the classifier in closed form, of all else from log p itself; two tasks are a product."""
    classes, ratings = trainer_of(TASKS["sum"], 1e9), trainer_of(TASKS["ratings"], 1e9)
    found = information(classes)
    h, z = into_classifier(classes)
    p = softmax(z)
    np.testing.assert_allclose(found["head.classifier.bias"], (p * (1 - p)).mean(0), rtol=1e-9)
    np.testing.assert_allclose(
        found["head.classifier.weight"],
        np.einsum("nk,nj->kj", p * (1 - p), h**2) / COUNT, rtol=1e-9,
    )  # fmt: skip
    name = next(n for n in found if "lora_A" in n)
    parameter = dict(classes.plain.named_parameters())[name]
    by_hand = torch.zeros_like(parameter)
    for i in EVERY:
        for c in range(2):
            log_p = classes.plain(classes.examples.batch([i], "cpu")).log_softmax(-1)[0, c]
            (gradient,) = torch.autograd.grad(log_p, parameter)
            by_hand += log_p.exp().detach() * gradient**2 / COUNT
    assert by_hand.abs().sum() > 0
    # The states' time means are float32, whatever the model.
    torch.testing.assert_close(found[name], by_hand, rtol=1e-4, atol=1e-5 * float(by_hand.max()))

    rated = information(ratings)
    h, _ = into_classifier(ratings)
    assert rated["head.classifier.bias"].tolist() == [1, 1]  # Gaussians of variance 1
    np.testing.assert_allclose(
        rated["head.classifier.weight"], np.tile((h**2).mean(0), (2, 1)), rtol=1e-9
    )

    both = trainer_of(TASKS["both"], 1e9)  # emotion weighs 0.5
    _, z = into_classifier(both)
    p = softmax(z[:, :2])
    np.testing.assert_allclose(
        information(both)["head.classifier.bias"], [*0.5 * (p * (1 - p)).mean(0), 1, 1], rtol=1e-9
    )


@pytest.mark.parametrize("task", ["sum", "both"])
def test_held_by_its_outputs(task: str) -> None:
    """Learning without forgetting: loss and the bias' gradient by hand, on one and three groups."""
    strength, heat = 0.7, 3.0
    for count in (1, 3):
        trainer = trainer_of(TASKS[task], SECONDS[count], weights=WEIGHTS)
        _, old = into_classifier(trainer)
        hold(trainer, "lwf", strength, trainer.plain.kept_state(), heat)
        plain = trainer_of(TASKS[task], SECONDS[count], weights=WEIGHTS)
        moved(plain), moved(trainer)
        _, new = into_classifier(trainer)
        wanted = gradients(plain)["head.classifier.bias"].numpy()
        q, p = softmax(old[:, :2] / heat), softmax(new[:, :2] / heat)
        part = 1.0 if task == "sum" else 0.5  # emotion's share in the loss
        apart = part * heat**2 * (q * np.log(q / p)).sum(1)
        slope = part * heat * (p - q)
        if task == "both":
            away = new[:, 2:] - old[:, 2:]
            apart, slope = apart + (away**2).sum(1), np.hstack([slope, 2 * away])
        found = gradients(trainer)
        np.testing.assert_allclose(
            found["head.classifier.bias"], wanted + strength * SHARE @ slope, rtol=1e-9, atol=1e-13
        )
        more = float(trainer.loss_sum) - float(plain.loss_sum)
        assert more == pytest.approx(strength * SHARE @ apart, abs=1e-6)  # summed in float32
        if count == 1:
            whole = found
        for name, gradient in found.items():
            assert torch.allclose(gradient, whole[name], rtol=1e-9, atol=1e-14), name


def test_a_task_that_says_nothing_is_refused() -> None:
    task: Task = Together()
    with pytest.raises(UserError, match="ewc needs a likelihood, and task together has none"):
        information(trainer_of(task, 1e9))
    trainer = trainer_of(task, 1e9)
    hold(trainer, "lwf", 1.0, trainer.plain.kept_state())
    with pytest.raises(UserError, match="lwf cannot tell"):
        gradients(trainer)
