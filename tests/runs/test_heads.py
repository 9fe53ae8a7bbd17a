"""Every head through a run: LoRA, frozen, separate heads, sampling; recorded, resumed, shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from emopeft.downstream.corpora.manifest import read as utterances
from emopeft.downstream.heads.base import HEADS
from emopeft.downstream.models.checkpoint import read_progress
from emopeft.downstream.records.record import verify
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.sharing.hub import export, import_, load
from emopeft.downstream.tasks.base import TASKS
from emopeft.downstream.training.trainer import Trainer
from tests.calls import call, demo_run, predictions, read, scores
from tests.runs.rated import TWO_FOLDS, manifest, protocol
from tests.tasks.toy import Together

HEADS_OF_RUNS = {
    "attentive": ["head.layers=last", "head.hidden=32", "head.dropout=0.5"],
    "conv": ["head.layers=blocks", "head.hidden=32"],
    "superb": ["head.layers=weighted_sum", "head.hidden=32"],
}


def options(*keys: str) -> list[str]:
    return [word for key in keys for word in ("-o", key)]


@pytest.fixture(scope="module")
def trained(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA under each head, with sampling under the attentive one; by the head's name."""
    out = tmp_path_factory.mktemp("runs")
    for name, keys in HEADS_OF_RUNS.items():
        more = ["train.sampling=balanced"] if name == "attentive" else []
        assert (
            demo_run(demo_corpus, out, *options(f"head.name={name}", *keys, *more), name=name) == 0
        )
    return out


def test_every_head_is_here() -> None:
    assert set(HEADS_OF_RUNS) == set(HEADS)


@pytest.mark.parametrize("name", HEADS_OF_RUNS)
def test_lora_under_each_head(name: str, trained: Path, tmp_path: Path) -> None:
    run = trained / name
    assert verify(run) == []
    facts = read(run / "fold1_seed0" / "fold.json")
    assert facts["head"]["name"] == name and facts["head"]["groups"] == []
    width, hidden, sizes = 64, 32, {}
    sizes["superb"] = width * hidden + hidden + hidden * 4 + 4 + 3
    sizes["conv"] = width * hidden + hidden + 3 * (hidden * hidden + hidden) + hidden * 4 + 4 + 2
    sizes["attentive"] = (
        width * width + 2 * width + 2 * width * hidden + 3 * hidden + hidden * 4 + 4
    )
    assert facts["parameters"]["head"] == sizes[name]
    history = facts["stages"][0]["result"]["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    (again,) = evaluate(run)
    assert again["difference"] < 1e-4
    export(run, tmp_path / "card")
    import_(tmp_path / "card", tmp_path / "back")
    assert (tmp_path / "back" / "adapter.json").is_file()
    row = predictions(run / "fold1_seed0" / "predictions.csv")[0]
    assert row["prediction"] in load(tmp_path / "card").task.classes


def test_sampling_is_in_the_identity(trained: Path, demo_corpus: Path) -> None:
    assert read(trained / "attentive" / "identity.json")["train"]["sampling"] == "balanced"
    keys = options("head.name=attentive", *HEADS_OF_RUNS["attentive"])
    assert demo_run(demo_corpus, trained, *keys, name="attentive") == 2  # another run


def test_resumed_in_the_middle_of_a_sampled_epoch(
    trained: Path, demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    optimise = Trainer._optimise

    def stops(self: Trainer, batch: list[int]) -> None:
        if self.step == 7:
            raise KeyboardInterrupt
        optimise(self, batch)

    keys = options("head.name=attentive", *HEADS_OF_RUNS["attentive"], "train.sampling=balanced")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stops)
        assert demo_run(demo_corpus, tmp_path, *keys, name="attentive") == 130
    progress = read_progress(tmp_path / "attentive" / "fold1_seed0" / "stage1.pt")
    assert progress["step"] == 7  # 5 steps an epoch
    assert demo_run(demo_corpus, tmp_path, *keys, name="attentive") == 0
    assert scores(tmp_path / "attentive") == scores(trained / "attentive")


def test_attentive_on_a_frozen_encoder_with_and_without_the_cache(
    demo_corpus: Path, tmp_path: Path
) -> None:
    keys = options("head.name=attentive", "head.hidden=32")
    off = options("cache.enabled=false")
    assert demo_run(demo_corpus, tmp_path, *keys, method="none", name="kept") == 0
    assert demo_run(demo_corpus, tmp_path, *keys, *off, method="none", name="live") == 0
    for one, other in zip(scores(tmp_path / "kept"), scores(tmp_path / "live"), strict=True):
        assert one[0] == other[0] and one[1] == pytest.approx(other[1], abs=1e-4)


def test_bf16(demo_corpus: Path, tmp_path: Path) -> None:
    keys = options("head.name=attentive", "head.hidden=32", "train.precision=bf16")
    assert demo_run(demo_corpus, tmp_path, *keys) == 0
    history = read(tmp_path / "r" / "fold1_seed0" / "fold.json")["stages"][0]["result"]["history"]
    assert history[-1]["loss"] < history[0]["loss"]


def test_an_unknown_head_is_named_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = tmp_path / "nowhere"
    assert demo_run(nowhere, tmp_path, *options("head.name=atentive")) == 2
    said = capsys.readouterr().err + caplog.text
    assert "unknown value of head.name 'atentive': did you mean attentive?" in said


# ---- separate heads ---------------------------------------------------------------------------


class Two(Together):
    """Two ratings, each with its CCC; the loss is their mean."""

    name = "two"
    target_names = ("valence", "against")
    outputs = 2
    output_groups = (("valence", 1), ("against", 1))

    def target(self, utterance):
        found = super().target(utterance)
        return None if found is None else (found[0], 5 - found[0])

    def loss(self, outputs, targets, weights):
        parts = [super(Two, self).loss(outputs[:, i:], targets[:, i:], weights) for i in (0, 1)]
        return torch.stack(parts).mean()


@pytest.fixture
def rated(demo_corpus: Path, tmp_path: Path) -> Iterator[list[object]]:
    """Flags of the two ratings on the demo corpus."""
    TASKS.add("two", Two)
    data = manifest(demo_corpus, tmp_path / "rated.csv")
    folds = protocol(tmp_path / "toy.json", "toy-two", "two", TWO_FOLDS)
    yield ["-u", "demo", "-d", "two", "--corpus", "manifest", "--data", data, "--protocol", folds,
           "--fold", "1", "--out", tmp_path, "-n", "r"]  # fmt: skip
    TASKS._items.pop("two")


@pytest.mark.parametrize(
    ("head", "method", "epochs"),
    [("superb", "none", 30), ("superb", "lora", 3), ("attentive", "lora:targets=classifier+q", 3)],
)
def test_separate_heads(
    head: str, method: str, epochs: int, rated: list[object], tmp_path: Path
) -> None:
    keys = options(f"head.name={head}", "head.separate=true", "head.hidden=32",
                   "train.batch_seconds=12", "train.lr=3e-3", f"train.epochs={epochs}")  # fmt: skip
    assert call(*rated, "-p", method, *keys) == 0
    run = tmp_path / "r"
    assert verify(run) == []
    facts = read(run / "fold1_seed0" / "fold.json")
    assert facts["head"]["groups"] == [
        {"name": "valence", "outputs": 1}, {"name": "against", "outputs": 1}
    ]  # fmt: skip
    history = facts["stages"][0]["result"]["history"]
    assert history[-1]["loss"] < history[0]["loss"]
    if head == "superb":
        each = 64 * 32 + 32 + 32 + 1
        assert facts["parameters"]["head"] == 2 * each + 3
    (again,) = evaluate(run)
    assert again["difference"] < 1e-4
    export(run, tmp_path / "card")
    import_(tmp_path / "card", tmp_path / "back")
    row = predictions(run / "fold1_seed0" / "predictions.csv")[0]
    clip = {u.id: u for u in utterances(Path(str(rated[7])))}[row["id"].partition("/")[2]]
    found = load(tmp_path / "card")(clip.path)["prediction"]
    assert found == pytest.approx(float(row["prediction"]), abs=1e-4)


def test_emotion_has_one_group(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    assert demo_run(demo_corpus, tmp_path, *options("head.separate=true")) == 2
    assert "this task has one group; set it to false" in capsys.readouterr().err + caplog.text
    assert not list(tmp_path.glob("r/*"))
