"""Two trained states as one: averages, and sums of updates, against the sums written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from emopeft.downstream.data.fold import Example
from emopeft.downstream.data.rehearsal import rehearsed
from emopeft.downstream.models.merging import added, averaged, method_of_sum
from emopeft.downstream.models.model import AdaptedModel
from emopeft.downstream.tasks.dimensional import DimensionalTask
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.peft_modules.base import parse
from tests.peft_modules.cases import base, batch_of, built
from tests.peft_modules.test_battery import train
from tests.tasks.helpers import utterance

SUM = "lora:r=2,alpha=3,targets=q+classifier+ba:bottleneck=4+wg"


def two_ends(spec: str) -> tuple[AdaptedModel, list[dict[str, Tensor]]]:
    """A model, its state at the start, and where two trainings from there ended."""
    _, model = built(base("hubert_base_like")[0], spec)
    states = [model.kept_state()]
    for steps in (2, 3):
        model.load_kept_state(states[0])
        train(model, batch_of(model), steps)
        states.append(model.kept_state())
    return model, states


def test_updates_add_up_in_every_layer() -> None:
    """W x + (alpha / r) (B_1 A_1 + B_2 A_2) x, and h + BA_1(h) + BA_2(h), in double precision."""
    model, (start, first, second) = two_ends(SUM)
    spec = method_of_sum(model.methods)
    state = added(start, first, second, model)
    assert spec == "lora:r=4,alpha=6.0,targets=q+classifier+ba:bottleneck=8+wg"
    _, wide = built(base("hubert_base_like")[0], spec, seed=3)
    wide.load_kept_state(state)
    wide.double()
    for kind, layer in (("upstream", wide.upstream.role(1, "q")), ("head", wide.head.classifier)):
        x = torch.randn(5, layer.in_features, dtype=torch.float64)
        path = next(n for n, m in wide.named_modules() if m is layer)
        assert path.startswith(kind)
        wanted = layer.base_layer(x)
        for end in (first, second):
            a, b = (end[f"{path}.lora_{factor}.default.weight"].double() for factor in "AB")
            assert b.any()
            wanted = wanted + 1.5 * x @ a.T @ b.T
        torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)
    h = torch.randn(5, 32, dtype=torch.float64)
    adapter, gate = wide.upstream.after_block[1]
    wanted = h
    for end in (first, second):
        v, c, u, b = (
            end[f"upstream.after_block.1.0.{part}"].double()
            for part in ("down.weight", "down.bias", "up.weight", "up.bias")
        )
        wanted = wanted + (h @ v.T + c).relu() @ u.T + b
    torch.testing.assert_close(adapter(h), wanted, rtol=0, atol=1e-8)  # b is float32
    tensors = {"upstream.after_block.1.1.weight": gate.weight,
               "head.projector.weight": wide.head.projector.weight}  # fmt: skip
    for name, found in tensors.items():
        ends = (end[name].double() for end in (first, second, start))
        torch.testing.assert_close(
            found, next(ends) + next(ends) - next(ends), rtol=0, atol=1e-6
        )  # rounded to float32


def test_an_update_and_none_is_the_update() -> None:
    """Of the whole model, to the outputs; of what trains pretrained weights, too."""
    for spec in (SUM, "partial:1"):
        model, (start, first, _) = two_ends(spec)
        wide_spec = method_of_sum(model.methods)
        state = added(start, start, first, model)
        assert (wide_spec == model.adaptation.spec) == (spec == "partial:1")
        _, wide = built(base("hubert_base_like")[0], wide_spec, seed=3)
        wide.load_kept_state(state)
        model.load_kept_state(first)
        outputs = wide.eval()(batch_of(wide))
        torch.testing.assert_close(outputs, model.eval()(batch_of(model)), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_added() -> None:
    with pytest.raises(UserError, match="two updates of method 'prompt' cannot be added"):
        method_of_sum(parse("lora:r=2+prompt:n=2"))
    model, (start, first, second) = two_ends(SUM)
    with pytest.raises(UserError, match=r"up.weight is not 0 where both stages start"):
        added(second, first, second, model)
    name = "head.classifier.base_layer.weight"  # below LoRA it does not train
    with pytest.raises(UserError, match=f"{name} did not train and differs"):
        added(start, first, second | {name: second[name] + 1}, model)
    short = {n: t[:1] for n, t in second.items()}
    with pytest.raises(UserError, match="same classes"):
        added(start, first, short, model)
    with pytest.raises(UserError, match="only one of them holds"):
        averaged(first, {}, 0.5, first)


def test_averages() -> None:
    model, (start, first, second) = two_ends("lora:r=2,targets=q")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(t, first[n]) for n, t in averaged(first, second, 0, trained).items())
    assert all(torch.equal(t, second[n]) for n, t in averaged(first, second, 1, trained).items())
    quarter = averaged(first, second, 0.25, trained)
    for name, tensor in quarter.items():
        wanted = 0.75 * first[name].double() + 0.25 * second[name].double()
        torch.testing.assert_close(tensor, wanted.float(), rtol=1e-6, atol=1e-9)
    # What the product of averaged factors lacks of the average of the products.
    a, b = ([s[n].double() for s in (first, second)] for n in sorted(trained)
            if "layers.0" in n and "lora" in n)  # fmt: skip
    products = 0.75 * b[0] @ a[0] + 0.25 * b[1] @ a[1]
    of_factors = (0.75 * b[0] + 0.25 * b[1]) @ (0.75 * a[0] + 0.25 * a[1])
    lacks = 0.75 * 0.25 * (b[1] - b[0]) @ (a[1] - a[0])
    torch.testing.assert_close(products - of_factors, lacks, rtol=1e-9, atol=1e-15)


def test_rehearsed_clips() -> None:
    """A number per class, by digest: of no order, and more of them are those and others."""
    task = EmotionTask(("a", "b"), {"toy": {"A": "a", "B": "b"}})
    every = [Example(utterance(f"u{i}", emotion="AB?"[i % 3]), weight=0.5) for i in range(30)]
    two, four = (rehearsed(every, task, count, 0) for count in (2, 4))
    assert [e.utterance.emotion for e in four].count("A") == 4 == len(four) // 2
    assert set(two) < set(four) and all(e.weight == 0.5 for e in four)
    assert four == [e for e in every if e in four]
    assert set(rehearsed(every[::-1], task, 4, 0)) == set(four)
    assert set(rehearsed(every, task, 4, 1)) != set(four)
    assert len(rehearsed(every, task, 99, 0)) == 20
    assert rehearsed(every, task, 0, 0) == []
    with pytest.raises(UserError, match="task dimensional has none"):
        rehearsed(every, DimensionalTask({"valence": (0, 1)}), 2, 0)
