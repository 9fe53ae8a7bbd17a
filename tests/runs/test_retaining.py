"""What two stages are compared with: penalties, rehearsal, averages and sums, as runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from emopeft.downstream.records.record import verify
from emopeft.downstream.runs import source_fisher, strategies
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.training.anchors import fisher, hold
from emopeft.downstream.training.trainer import Trainer
from tests.calls import call, read
from tests.runs.rated import manifest, protocol

FOLD = {
    "name": "1",
    "tests": {"target": ["ses1_F"], "source": ["ses2_F"]},
    "stages": [
        {"name": "source", "train": ["ses3_F"], "dev": ["ses4_F"]},
        {"name": "target", "train": ["ses5_F"], "dev": ["ses4_F"]},
    ],
}
Run = Callable[..., Path]
State = dict[str, torch.Tensor]
EWC = ("transfer.penalty=ewc", "transfer.strength=1e4")
LWF = ("transfer.penalty=lwf", "transfer.strength=1", "transfer.rehearsal=3")


def keys(*options: str) -> list[str]:
    return [word for option in options for word in ("-o", option)]


@pytest.fixture(scope="module")
def command(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    root = tmp_path_factory.mktemp("transfer")
    data = manifest(demo_corpus, root / "clips.csv")
    folds = protocol(root / "toy.json", "toy-transfer", "emotion", [FOLD], "speaker")
    return ["-u", "demo", "-d", "emotion", "-p", "lora:r=2,alpha=3+ba:bottleneck=4+wg", "--corpus",
            "manifest", "--data", data, "--protocol", folds,
            *keys("train.epochs=2", "train.lr=3e-3", "train.choose=last",
                  "train.patience=null", "train.batch_size=16")]  # fmt: skip


@pytest.fixture(scope="module")
def ran(command: list[object], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder of a run, which is trained once."""
    out, done = tmp_path_factory.mktemp("runs"), set()

    def run(*options: str) -> Path:
        name = "-".join(o.partition("=")[2] for o in options) or "plain"
        if name not in done:
            assert call(*command, *keys(*options), "--out", out, "-n", name) == 0
            done.add(name)
        return out / name / "fold1_seed0"

    return run


def end(fold: Path) -> State:
    return load_file(fold / "adapter.safetensors")


def way(one: State, other: State, weights: State | None = None) -> float:
    """The square of the distance between two states."""
    names = one if weights is None else weights
    return sum(
        float(((one[n].double() - other[n].double()) ** 2 * (weights[n] if weights else 1)).sum())
        for n in names
    )


def test_held_stages_end_nearer_to_the_source(ran: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, torch.Tensor]] = []

    def making(*args: object) -> dict[str, torch.Tensor]:
        made.append(fisher(*args))  # type: ignore[arg-type]
        return made[-1]

    held: list[State] = []

    def holding(*args: Any) -> None:
        held.append(args[-1])
        hold(*args)

    monkeypatch.setattr(source_fisher, "fisher", making)
    monkeypatch.setattr(strategies, "hold", holding)
    source, free = end(ran("transfer.strategy=source")), end(ran())
    fold = ran(*EWC)
    (weights,) = made
    assert 0 < way(end(fold), source, weights) < 0.9 * way(free, source, weights)
    assert verify(fold.parent) == []
    said = read(fold / "fold.json")["identity"]["transfer"]
    assert said == {"penalty": "ewc", "strength": 1e4}
    # The Fisher information of one source's end is computed once for all strengths.
    assert way(end(ran(EWC[0], "transfer.strength=1e-30")), free) < 1e-6
    assert len(made) == 1 and len(held) == 2
    for used in held:
        assert used.keys() == weights.keys() and all(torch.equal(used[n], weights[n]) for n in used)


def test_killed_in_the_held_stage_and_resumed(
    command: list[object], ran: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, optimise = ran(*LWF), Trainer._optimise
    steps = read(fold / "fold.json")["stages"][1]["result"]["steps"]
    assert steps == 6  # 24 clips and 12 rehearsed ones, twice by 16

    def stops(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        if self.step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stops)
        assert call(*command, *keys(*LWF), "--out", tmp_path, "-n", "r") == 130
    assert call(*command, *keys(*LWF), "--out", tmp_path, "-n", "r") == 0
    again = tmp_path / "r" / "fold1_seed0"
    assert (again / "predictions.csv").read_bytes() == (fold / "predictions.csv").read_bytes()
    assert (fold / "predictions.csv").read_bytes() != (ran() / "predictions.csv").read_bytes()


def test_an_average_of_both_ends(ran: Run) -> None:
    source, target = end(ran("transfer.strategy=source")), end(ran())
    fold = ran("transfer.strategy=average", "transfer.share=0.25")
    found = end(fold)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.75 * source[name] + 0.25 * target[name])
    assert verify(fold.parent) == []
    assert all(r["difference"] < 1e-4 for r in evaluate(fold.parent))


def test_a_sum_of_both_updates(ran: Run) -> None:
    """Of the checkpoints of two runs that trained each stage alone, from the same start."""
    source, target = (end(ran(f"transfer.strategy={name}")) for name in ("source", "target"))
    fold = ran("transfer.strategy=addition")
    found = end(fold)
    assert found.keys() == source.keys()
    for name, tensor in found.items():
        if "lora_A" in name or ".down." in name:
            assert torch.equal(tensor, torch.cat([source[name], target[name]], 0))
        elif "lora_B" in name or ".up.weight" in name:
            assert torch.equal(tensor, torch.cat([source[name], target[name]], 1))
        elif ".up.bias" in name:
            torch.testing.assert_close(tensor, source[name] + target[name])
        else:  # gates and head: theta_1 + theta_2 - theta_0, which starts at 1, or as drawn
            assert tensor.shape == source[name].shape
    gates = [n for n in found if "after_block" in n and n.endswith(".1.weight")]
    assert gates
    for name in gates:
        torch.testing.assert_close(found[name], source[name] + target[name] - 1)
    assert verify(fold.parent) == []
    facts = read(fold / "fold.json")
    assert facts["method"]["spec"].startswith("lora:r=2,alpha=3.0+ba:bottleneck=4")  # as trained
    config = read(fold / "adapter.json")
    assert config["method"]["spec"].startswith("lora:r=4,alpha=6.0+ba:bottleneck=8")
    assert all(r["difference"] < 1e-4 for r in evaluate(fold.parent))


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        (("-p", "lora+prompt:n=1"), ["transfer.strategy=addition"], "method 'prompt' cannot"),
        (("-p", "none"), ["transfer.strategy=addition", "head.standardise=true"],
         "addition starts both stages with one head"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_trained(
    command: list[object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, str],
    options: list[str],
    says: str,
) -> None:
    place = command.index(change[0]) + 1
    changed = [*command[:place], change[1], *command[place + 1 :]]
    assert call(*changed, *keys(*options), "--out", tmp_path, "-n", "r") == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))
