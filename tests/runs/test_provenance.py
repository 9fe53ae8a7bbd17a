"""What is recorded is what trained, and what decides a number is in its identity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emopeft.downstream.models.build import Blueprint
from emopeft.downstream.runs import run as runs
from emopeft.downstream.runs import session as sessions
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.numerics import Numerics, peak_memory, stream
from emopeft.upstream.catalogue import load
from tests.calls import demo_run, read, scores


def facts(run: Path) -> dict:
    return read(run / "fold1_seed0" / "fold.json")


def test_a_later_call_changes_nothing(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW A6: a repeated command rewrote device, packages, peak memory, date and command."""
    assert demo_run(demo_corpus, tmp_path, method="none") == 0
    files = [tmp_path / "r" / name for name in ("result.json", "recipe.yaml", "identity.json",
                                                "fold1_seed0/fold.json")]  # fmt: skip
    before = [path.read_bytes() for path in files]
    monkeypatch.setattr("emopeft.downstream.runs.provenance.PACKAGES", ())
    assert demo_run(demo_corpus, tmp_path, "-o", "train.batch_seconds=30", method="none") == 0
    assert [path.read_bytes() for path in files] == before


def test_a_frozen_probe_is_recorded_as_it_trains(demo_corpus: Path, tmp_path: Path) -> None:
    """REVIEW A13: it trained in fp32, was recorded as bf16, and evaluated in bf16."""
    assert demo_run(demo_corpus, tmp_path, method="none", name="full") == 0
    bf16 = ["-o", "train.precision=bf16"]
    assert demo_run(demo_corpus, tmp_path, *bf16, method="none", name="short") == 0
    full, short = (facts(tmp_path / name) for name in ("full", "short"))
    assert short["numerics"]["precision"] == "fp32"
    assert short["identity"] == full["identity"]
    assert scores(tmp_path / "short") == scores(tmp_path / "full")
    (again,) = evaluate(tmp_path / "short")
    assert again["difference"] < 1e-5


def test_the_frozen_part_has_one_precision(demo_corpus: Path, tmp_path: Path) -> None:
    """REVIEW A13: without a cache it was that of the training, and fp32 in evaluation."""
    common = ["-o", "train.precision=bf16", "-o", "train.epochs=1"]
    off = [*common, "-o", "cache.enabled=false"]
    assert demo_run(demo_corpus, tmp_path, *common, method="partial:1", name="kept") == 0
    assert demo_run(demo_corpus, tmp_path, *off, method="partial:1", name="live") == 0
    kept, live = (facts(tmp_path / n)["stages"][0]["result"]["history"] for n in ("kept", "live"))
    # Batches of other shapes round otherwise in bf16; a frozen part in bf16 would differ by more.
    assert kept[0]["loss"] == pytest.approx(live[0]["loss"], rel=2e-3)
    assert facts(tmp_path / "kept")["numerics"]["frozen"] == "fp32"
    rounded = [*common, "-o", "cache.precision=bf16"]
    assert demo_run(demo_corpus, tmp_path, *rounded, method="partial:1", name="rounded") == 0
    other = facts(tmp_path / "rounded")
    assert other["numerics"]["frozen"] == "bf16"
    assert other["cache"]["id"] != facts(tmp_path / "kept")["cache"]["id"]
    assert other["identity"] != facts(tmp_path / "kept")["identity"]


def test_dropout_rates_are_in_the_identity(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW A10: with upstream.dropout=true another config's result was shown as this one's."""
    dropout = ["-o", "upstream.dropout=true", "-o", "train.epochs=1"]
    assert demo_run(demo_corpus, tmp_path, *dropout, name="one") == 0
    before = facts(tmp_path / "one")["identity"]["upstream"]["dropout"]
    assert before and all(0 < rate < 1 for rate in before.values())

    def louder(self, keys):
        upstream = load(keys.name, keys.path, keys.revision)
        for module in upstream.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.5
        return upstream

    monkeypatch.setattr(sessions, "upstream_of", lambda keys: louder(None, keys))
    assert demo_run(demo_corpus, tmp_path, *dropout, name="two") == 0
    assert facts(tmp_path / "two")["identity"]["upstream"]["dropout"] != before


def test_each_use_of_chance_has_a_stream_of_its_own() -> None:
    """REVIEW A17: rows of the head and of lora_A were equal, and dropout's stream was the next
    seed's initialisation."""
    assert stream("dropout", 0, 1, 0) != stream("dropout", 1, 0, 0)
    blueprint = Blueprint(load("demo"), "lora", {
        "name": "superb", "width": 64, "states": 3, "outputs": 4, "hidden": 64,
    })  # fmt: skip
    model = blueprint.model(0)
    rows = {
        tuple(row.tolist())
        for name, tensor in model.upstream.trainable()
        if "lora_A" in name
        for row in torch.sign(tensor.detach())
    }
    head = {tuple(row.tolist()) for row in torch.sign(model.head.projector.weight.detach())}
    assert rows and not rows & head


def test_seconds_and_memory_are_those_of_the_fold(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REVIEW A18: peak memory was that of the process, never reset; times were threads' seconds."""
    held = torch.zeros(60_000_000)  # 240 MB, gone before the fold begins
    peak = peak_memory()["host"]
    del held
    seen: list[dict] = []
    write = runs.write_finished
    monkeypatch.setattr(
        runs, "write_finished", lambda s, w, o, share: (seen.append(o.peak), write(s, w, o, share))
    )
    assert demo_run(demo_corpus, tmp_path, method="none") == 0
    if Path("/proc/self/clear_refs").exists():
        assert peak is not None and seen[0]["host"] < peak
    seconds = facts(tmp_path / "r")["seconds"]
    assert set(seconds) == {"load", "features", "tune", "train", "test"}
    assert all(value >= 0 for value in seconds.values()) and seconds["train"] > 0


def test_numerics_of_a_record_are_data() -> None:
    from emopeft.errors import UserError

    good = Numerics("bf16", "fp32", True, False)
    assert good.describe("cpu")["tf32"] is False and good.describe("cuda:0")["tf32"] is True
    assert Numerics.of(good.describe("cuda")) == good
    for bad in ({"precision": "fp8"}, {"tf32": 1}, {"more": True}, [], None):
        with pytest.raises(UserError, match="numerics"):
            Numerics.of(bad)


def test_the_switches_are_set() -> None:
    """REVIEW B: cuDNN's TF32 is on by default in torch."""
    torch.backends.cudnn.allow_tf32 = True
    Numerics().apply()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    Numerics(deterministic=True).apply()
    assert torch.are_deterministic_algorithms_enabled()
    Numerics().apply()
    assert not torch.are_deterministic_algorithms_enabled()
