"""Class-balanced sampling: how often, from what, and nothing but seed and epoch decides."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from emopeft.downstream.data import recipe as recipes
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.downstream.training.batching import epoch_order
from emopeft.downstream.training.selection import sampling_chances
from emopeft.downstream.training.side_by_side import train_probes
from emopeft.errors import UserError
from tests.training.cases import RATES, TRAIN, data, keys_of, probe_of
from tests.training.test_whole_batch import SECONDS, TASKS, trainer_of

SAMPLED = keys_of(sampling="balanced")
COUNTS = (70, 20, 9, 1)


def labels_and_chances() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    targets = torch.nn.functional.one_hot(labels, 4).float()
    chances = sampling_chances(EmotionTask(list("abcd")), SAMPLED, targets)
    assert chances is not None
    return labels, chances


def test_every_class_is_as_likely_as_the_others() -> None:
    labels, chances = labels_and_chances()
    epochs = 400
    drawn = torch.tensor([epoch_order(100, 0, e, chances) for e in range(epochs)])
    assert drawn.shape == (epochs, 100)  # as many as the training part has
    per_class = torch.bincount(labels[drawn.flatten()], minlength=4) / drawn.numel()
    # A binomial share of 1/4 of 40,000: five standard deviations are 0.011.
    assert (per_class - 0.25).abs().max() < 0.011
    # Within a class all are alike: 70 clips of 40,000 / 4 / 70 = 143 draws each.
    each = torch.bincount(drawn.flatten(), minlength=100)[:70].double()
    statistic = float(((each - each.mean()) ** 2 / each.mean()).sum())
    assert 30 < statistic < 125  # chi-square of 69 degrees of freedom: 5 deviations and more


def test_seed_and_epoch_alone_decide() -> None:
    _, chances = labels_and_chances()
    one = epoch_order(100, 3, 7, chances)
    assert one == epoch_order(100, 3, 7, chances)
    assert one != epoch_order(100, 3, 8, chances) and one != epoch_order(100, 4, 7, chances)
    assert one == epoch_order(100, 3, 7, chances * 2)  # a factor is none of its business
    assert len(set(one)) < 100  # with replacement


def test_without_sampling_an_epoch_sees_each_once() -> None:
    assert sampling_chances(EmotionTask(list("ab")), keys_of(), torch.eye(2)) is None
    assert sorted(epoch_order(50, 0, 0)) == list(range(50))


def test_probes_resume_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    means, targets = data()
    whole = probe_of(SAMPLED, 0, means, targets)
    list(train_probes([whole], quiet=True))
    stop = threading.Event()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done
        done += steps
        if done >= 100 * len(RATES):
            stop.set()

    first = probe_of(SAMPLED, 0, means, targets, tmp_path / "progress.pt")
    first.run(advance, stop)
    assert first.step % first.per_epoch != 0 and not first.done
    resumed = probe_of(SAMPLED, 0, means, targets, tmp_path / "progress.pt")
    list(train_probes([resumed], quiet=True))
    for mine, theirs in zip(resumed.trials, whole.trials, strict=True):
        assert mine.selection == theirs.selection
        assert all(torch.equal(mine.best[n], theirs.best[n]) for n in theirs.best)
    plain = probe_of(keys_of(), 0, means, targets)
    assert not torch.equal(plain.order(), probe_of(SAMPLED, 0, means, targets).order())
    assert plain.order().sort().values.tolist() == list(range(len(TRAIN)))


@pytest.mark.parametrize("method", ["lora", "lora:dropout=0.5"])
@pytest.mark.parametrize("task", TASKS)
def test_an_utterance_that_stands_twice_in_a_batch(task: str, method: str) -> None:
    """Each time with its own dropout, also where the loss is of the whole batch."""
    batch = [0, 5, 5, 11, 3, 5, 2, 2, 9, 0]
    trainer = trainer_of(TASKS[task], SECONDS[3], method)
    trainer.model.train()
    loss = trainer.gradient.backward(batch, trainer.step)
    other = trainer_of(TASKS[task], SECONDS[3], method)
    other.model.train()
    other.gradient.seed_dropout(other.step)
    groups, _ = other.gradient.groups(batch)
    assert len(groups) > 1 and sorted(p for g in groups for p in g) == list(range(len(batch)))
    clips = [[batch[p] for p in group] for group in groups]
    outputs = torch.cat([other.model(other.examples.batch(c, "cpu")) for c in clips])
    order = [i for c in clips for i in c]
    even = torch.full((len(batch),), 1 / len(batch), dtype=torch.float64)
    wanted = other.task.loss(outputs, other.examples.targets[order], even)
    wanted.backward()
    assert float(loss) == pytest.approx(wanted.item(), abs=1e-6)
    for name, parameter in other.plain.named_parameters():
        if parameter.requires_grad:
            found = trainer.plain.get_parameter(name).grad
            assert torch.allclose(found, parameter.grad, rtol=1e-9, atol=1e-14), name


def test_weights_and_sampling_would_correct_twice() -> None:
    both = {"train.class_weights": "effective", "train.sampling": "balanced"}
    with pytest.raises(UserError, match=r"train\.sampling=balanced would correct .* twice; set"):
        recipes.validate(recipes.build(both))
    for name in both:
        recipes.validate(recipes.build({name: both[name]}))


def test_every_corpus_is_as_likely_as_the_others_and_each_of_its_classes() -> None:
    """Chances by hand, and the shares of what is drawn; one of three corpora lacks a class."""
    clips = {("r", 0): 30, ("r", 1): 10, ("e", 0): 2, ("e", 1): 6, ("s", 1): 4}
    cells = [cell for cell, number in clips.items() for _ in range(number)]
    corpora = [corpus for corpus, _ in cells]
    targets = torch.eye(2)[[label for _, label in cells]]
    task = EmotionTask(list("ab"))
    for sampling in ("none", "balanced"):
        keys = keys_of(sampling=sampling, corpora="balanced")
        chances = sampling_chances(task, keys, targets, corpora)
        assert chances is not None
        for cell, chance in zip(cells, chances.tolist(), strict=True):
            corpus, _ = cell
            if sampling == "none":
                wanted = 1 / sum(n for (c, _), n in clips.items() if c == corpus)
            else:
                classes = sum(c == corpus for c, _ in clips)
                wanted = 1 / classes / clips[cell]
            assert chance == pytest.approx(wanted, rel=1e-6)
        drawn = torch.tensor([epoch_order(len(cells), 0, e, chances) for e in range(400)]).flatten()
        for corpus in "res":
            share = sum(corpora[i] == corpus for i in drawn.tolist()) / len(drawn)
            assert share == pytest.approx(1 / 3, abs=0.017)  # five deviations of 20,800 draws
    # Where there is one corpus, nothing changes.
    alone = keys_of(corpora="balanced")
    assert sampling_chances(task, alone, targets, ["r"] * len(cells)) is None


def test_even_corpora_need_several_and_no_other_weights() -> None:
    even = {"train.corpora": "balanced"}
    with pytest.raises(UserError, match=r"is for several corpora, and corpus\.name is emodb; give"):
        recipes.validate(recipes.build({**even, "corpus.name": "emodb"}))
    pair = {**even, "corpus.name": "emodb+ravdess"}
    with pytest.raises(UserError, match=r"class_weights=balanced goes by .* take train\.sampling"):
        recipes.validate(recipes.build({**pair, "train.class_weights": "balanced"}))
    recipes.validate(recipes.build({**pair, "train.sampling": "balanced"}))
