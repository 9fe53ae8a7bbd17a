"""Separate heads: what each computes and learns is what a head of its own would."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from emopeft.downstream.data.keys import HeadKeys
from emopeft.downstream.heads.base import HEADS, Head
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.heads.separate import SeparateHeads
from emopeft.downstream.models.build import assemble, head_arguments, restore
from emopeft.downstream.models.checkpoint import write_adapter
from emopeft.downstream.models.counting import describe_head, parameter_counts
from emopeft.errors import UserError
from emopeft.peft_modules.apply import adapt
from tests.models.folds import HEAD, blueprint, config_of, edit, outputs
from tests.peft_modules.cases import base, batch_of
from tests.peft_modules.test_battery import train

KINDS = ("superb", "conv", "attentive")
GROUPS = [{"name": "valence", "outputs": 1}, {"name": "classes", "outputs": 3}]
SIZES = {"width": 6, "states": 3, "hidden": 5, "dropout": 0.0}
LENGTHS = torch.tensor([9, 4])


def both(kind: str, layers: str, seed: int = 0) -> tuple[SeparateHeads, list[Head]]:
    """Separate heads, and heads of one group each with the same parameters."""
    torch.manual_seed(seed)
    together = make_head(kind, outputs=4, layers=layers, groups=GROUPS, **SIZES)
    assert isinstance(together, SeparateHeads)
    if together.featurizer.weights is not None:
        torch.nn.init.normal_(together.featurizer.weights)
    apart = []
    for number, group in enumerate(GROUPS):
        head = make_head(kind, outputs=int(str(group["outputs"])), layers=layers, **SIZES)
        head.featurizer.load_state_dict(together.featurizer.state_dict())
        own = dict(together.heads[number].state_dict())
        head.load_state_dict(own | head.featurizer.state_dict(prefix="featurizer."))
        apart.append(head.double())
    return together.double(), apart


def inputs_of(head: Head) -> torch.Tensor:
    shape = (2, 3, 6) if head.pooled else (2, 3, 9, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("layers", ["weighted_sum", "last", "blocks"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_outputs_are_those_of_heads_of_their_own(kind: str, layers: str) -> None:
    together, apart = both(kind, layers)
    assert together.pooled == HEADS[kind].pooled
    states = inputs_of(together)
    wanted = torch.cat([head(states, LENGTHS) for head in apart], -1)
    assert torch.equal(together(states, LENGTHS), wanted)
    sizes = [sum(p.numel() for p in head.parameters()) for head in apart]
    shared = sum(p.numel() for p in together.featurizer.parameters())
    assert sum(p.numel() for p in together.parameters()) == sum(sizes) - shared


@pytest.mark.parametrize("kind", KINDS)
def test_trained_together_or_apart(kind: str) -> None:
    """On one state nothing is shared: the sum of two losses trains each as its own does."""
    together, apart = both(kind, "last")
    states = inputs_of(together)
    wanted = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def losses(found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (found - target).square().sum()

    targets = (wanted[:, :1], wanted[:, 1:])
    for heads in ([together], apart):
        optimizer = torch.optim.Adam([p for h in heads for p in h.parameters()], lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            found = torch.cat([head(states, LENGTHS) for head in heads], -1)
            sum(losses(f, t) for f, t in zip(found.split([1, 3], -1), targets, strict=True)
                ).backward()  # type: ignore[union-attr]  # fmt: skip
            optimizer.step()
    for number, head in enumerate(apart):
        own = dict(together.heads[number].named_parameters())
        for name, parameter in head.named_parameters():
            torch.testing.assert_close(own[name], parameter, rtol=1e-9, atol=1e-12)


def test_standardised_means_are_shared() -> None:
    torch.manual_seed(0)
    head = make_head("superb", outputs=4, groups=GROUPS, standardise=True, **SIZES)
    means = torch.randn(20, 3, 6)
    head.fit_standardisation(means)
    scaled = copy.deepcopy(head)
    scaled.fit_standardisation(means * 1e3 + 5)
    nothing = torch.empty(0)
    torch.testing.assert_close(
        head(means, nothing), scaled(means * 1e3 + 5, nothing), rtol=1e-3, atol=1e-3
    )
    assert [n for n, _ in head.named_buffers()] == ["mean", "scale"]


def test_lora_on_each_classifier() -> None:
    upstream = copy.deepcopy(base("hubert_base_like")[0])
    for kind, last in (("superb", "classifier"), ("conv", "classifier.2")):
        adaptation = adapt(copy.deepcopy(upstream), "lora:targets=classifier,r=2")
        head = make_head(kind, width=32, states=4, outputs=4, hidden=8, groups=GROUPS)
        model = assemble(adaptation, head, dropout=False)
        names = [f"heads.{i}.{last}.lora_{m}.default.weight" for i in (0, 1) for m in "AB"]
        assert model.head.patched == {"lora": names}
        rows = describe_head(adaptation, model.head)
        assert [(r["module"], r["parameters"]) for r in rows] == [
            ("heads.0.classifier", 2 * (8 + 1)), ("heads.1.classifier", 2 * (8 + 3))
        ]  # fmt: skip
        assert parameter_counts(adaptation, model.head)["method"] == 2 * (8 + 1) + 2 * (8 + 3)
        frozen = [n for n, p in head.named_parameters() if not p.requires_grad]
        assert frozen == [
            f"heads.{i}.{last}.base_layer.{w}" for i in (0, 1) for w in ("weight", "bias")
        ]


def separate_fold(place: Path, kind: str, method: str) -> tuple[Path, torch.Tensor]:
    """A trained fold whose head has a group for each of two ratings."""
    made = blueprint(place, method)
    groups = [{"name": n, "outputs": 1} for n in ("arousal", "valence")]
    made.head = HEAD | {"name": kind, "groups": groups}
    model = made.model(3)
    train(model, batch_of(model), steps=3)
    config = config_of(made, model, place, 3) | {"task": task_description()}
    write_adapter(place / "fold1_seed3", model.kept_state(), config)
    return place / "fold1_seed3", outputs(model)


def task_description() -> dict[str, object]:
    from emopeft.downstream.tasks.dimensional import DimensionalTask

    return DimensionalTask({"arousal": (1.0, 5.0), "valence": (1.0, 5.0)}).describe()


@pytest.mark.parametrize(
    ("kind", "method"),
    [("superb", "lora"), ("conv", "lora:targets=classifier+q,r=2"), ("attentive", "ba+ws")],
)
def test_a_checkpoint_of_separate_heads(kind: str, method: str, tmp_path: Path) -> None:
    folder, wanted = separate_fold(tmp_path, kind, method)
    model, config = restore(folder)
    assert torch.equal(outputs(model), wanted)
    assert [g["name"] for g in config["head"]["groups"]] == ["arousal", "valence"]
    # Another stage goes on with it, and may freeze it.
    later = blueprint(tmp_path, method)
    later.head = config["head"]
    second = later.model(4)
    assert second.carry(model.kept_state()) == []
    assert torch.equal(outputs(second), wanted)
    frozen = second.freeze(["head"])
    assert {n.split(".")[1] for n in frozen if "featurizer" not in n} == {"heads"}


def test_groups_of_a_checkpoint_must_be_the_tasks(tmp_path: Path) -> None:
    folder, _ = separate_fold(tmp_path, "superb", "none")
    edit(folder, "head", "groups", 0, "name", value="valence")
    with pytest.raises(UserError, match=r"head\.groups' holds other groups than the task"):
        restore(folder)
    edit(folder, "head", "groups", 0, "name", value="arousal")
    edit(folder, "head", "groups", 0, "outputs", value=2)
    with pytest.raises(UserError, match=r"fold1_seed3: .*head\.groups"):
        restore(folder)


def test_one_group_is_no_separate_head() -> None:
    upstream = base("hubert_base_like")[0]
    keys = HeadKeys(separate=True)
    with pytest.raises(UserError, match=r"head\.separate=true .* one group; set it to false"):
        head_arguments(keys, upstream, "none", (("emotion", 4),))
    two = head_arguments(keys, upstream, "none", (("emotion", 4), ("ratings", 3)))
    assert two["outputs"] == 7 and [g["outputs"] for g in two["groups"]] == [4, 3]
    assert head_arguments(HeadKeys(), upstream, "none", (("a", 4), ("b", 3)))["groups"] == []
