"""head.init=probe: a fold's head starts as its own frozen probe, made once for all methods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from emopeft.downstream.data import recipe as recipes
from emopeft.downstream.data import resolve as resolving
from emopeft.downstream.data.keys import TrainKeys
from emopeft.downstream.data.recipe import Recipe, build, flatten, merge, probe_keys, read_yaml
from emopeft.downstream.feature_cache.folders import folders, remove, table
from emopeft.downstream.feature_cache.kept_states import PROBES, KeptStates
from emopeft.downstream.records.record import verify, write_record
from emopeft.downstream.runs import starting
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.runs.session import Session, open_session
from emopeft.downstream.runs.starting import own_key, shared_key, start_of
from emopeft.downstream.runs.work import Work
from emopeft.downstream.training.evaluating import outputs_of
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError
from emopeft.files import file_digest
from tests.calls import SHORT, call, demo_run, read, scores
from tests.runs.rated import manifest, protocol
from tests.runs.test_stages import STAGED
from tests.shared import ROOT

PROBE = ("-o", "head.init=probe")


QUICK = """
train:
  optimizer: adam
  lr: 1.0e-3
  epochs: 20
  batch_size: 32
  patience: 5
"""


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A frozen upstream's defaults, but shorter."""
    place, shipped = tmp_path / "frozen.yaml", recipes.default_recipe
    place.write_text(QUICK)
    for module in (recipes, resolving):
        monkeypatch.setattr(
            module,
            "default_recipe",
            lambda p, kind: place if kind == "frozen" else shipped(p, kind),
        )
    return place


@pytest.fixture(autouse=True)
def cache(quick: Path) -> Path:
    """The caches' place, without any probe."""
    forget()
    return Path(os.environ["EMOPEFT_CACHE"])


def forget() -> None:
    """Take out all kept probes."""
    for folder in folders(Path(os.environ["EMOPEFT_CACHE"])):
        if folder.key.get("start") == "probe":
            shutil.rmtree(folder.path)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the probes that are trained."""
    labels: list[str] = []
    make = starting._made

    def counting(session: Session, work: Work) -> Any:
        labels.append(work.label)
        return make(session, work)

    monkeypatch.setattr(starting, "_made", counting)
    return labels


def recipe_on(corpus: Path, out: Path, **changes: Any) -> Recipe:
    """A recipe of fold 1 of the demo that starts from the probe; keys with __ for the dots."""
    place = recipes.default_recipe("demo-5fold", "peft")
    asked = {
        "upstream.name": "demo", "corpus.name": "demo", "corpus.data": str(corpus), "folds": "1",
        "method": "lora", "head.init": "probe", "train.epochs": 2, "train.lr": 3e-3,
        "out": str(out), **{k.replace("__", "."): v for k, v in changes.items()},
    }  # fmt: skip
    return build(merge([flatten(read_yaml(place), str(place)), asked]))


def opened(corpus: Path, out: Path, **changes: Any) -> tuple[Session, Work]:
    session = open_session(recipe_on(corpus, out, **changes), "a test")
    fold = session.plan.choose(session.recipe.folds)[0]
    return session, Work(fold, session.recipe.seeds[0], session.folder / "fold")


def kept_files(cache: Path) -> list[Path]:
    return sorted((cache / "features").glob("*/probe-*.safetensors"))


def fold_of(run: Path) -> dict[str, Any]:
    return read(run / "fold1_seed0" / "fold.json")


def history(run: Path, stage: int = 0) -> list[dict[str, Any]]:
    return fold_of(run)["stages"][stage]["result"]["history"]


# ---- where it starts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("lora", {}),
        ("partial:1", {}),
        ("full", {}),
        ("lora:targets=classifier", {}),
        ("lora:targets=q+v+classifier", {}),
        ("lora+ws:blocks", {}),
        ("lora", {"head__name": "conv", "train__class_weights": "balanced"}),
        ("lora", {"head__standardise": True}),
    ],
)
def test_the_start_is_the_probe(
    method: str, changes: dict[str, Any], demo_corpus: Path, tmp_path: Path
) -> None:
    session, work = opened(demo_corpus, tmp_path, method=method, **changes)
    start = start_of(session, work)
    assert start is not None and session.frozen is not None
    frozen, _ = starting._frozen_run(session, work)
    dev = session.indices(work.fold.stages[0].dev)
    keys, accelerator = session.recipe.train, session.accelerator
    ours = session.setup.model(0, start.state)
    wanted = frozen.setup.model(0, start.state)
    random = frozen.setup.model(0)
    outputs, probe, drawn = (
        outputs_of(model, examples, dev, keys, accelerator)
        for model, examples in (
            (ours, session.examples),
            (wanted, frozen.examples),
            (random, frozen.examples),
        )
    )
    torch.testing.assert_close(outputs, probe, rtol=1e-4, atol=1e-5)
    assert (outputs - drawn).abs().max() > 0.1  # far from where the head would start else
    # They are what the probe was chosen for.
    targets = session.examples.targets[dev]
    measured = session.task.measure(session.task.table(probe, targets))
    assert measured["uar"] == pytest.approx(start.result.dev["uar"])
    assert start.result.dev["uar"] == max(
        start.result.dev["uar"], session.task.measure(session.task.table(drawn, targets))["uar"]
    )


def test_the_probe_is_the_run_of_a_frozen_upstream(
    demo_corpus: Path, tmp_path: Path, cache: Path
) -> None:
    """To the last digit: ``-p none`` by its own defaults, on the same fold and seed."""
    flags = ["-u", "demo", "-d", "emotion", "--corpus", "demo", "--data", demo_corpus, "--fold", 1,
             "--out", tmp_path]  # fmt: skip
    assert call(*flags, "-p", "none", "-n", "none") == 0
    assert call(*flags, "-p", "lora", "-n", "lora", *PROBE, "-o", "train.epochs=1") == 0
    (kept,) = kept_files(cache)
    alone = load_file(tmp_path / "none" / "fold1_seed0" / "adapter.safetensors")
    for name, tensor in load_file(kept).items():
        assert torch.equal(tensor, alone[f"head.{name}"]), name
    probe = fold_of(tmp_path / "lora")["probe"]
    result = fold_of(tmp_path / "none")["stages"][0]["result"]
    assert {name: probe[name] for name in ("lr", "steps", "best_step", "dev")} == {
        name: result[name] for name in ("lr", "steps", "best_step", "dev")
    }
    assert probe["evaluations"] == len(result["history"])
    assert history(tmp_path / "lora")[0]["uar"] == probe["dev"]["uar"]


def test_only_the_first_stage_starts_from_the_probe(demo_corpus: Path, tmp_path: Path) -> None:
    data = manifest(demo_corpus, tmp_path / "clips.csv")
    folds = protocol(tmp_path / "staged.json", "toy-staged", "emotion", STAGED)
    command = ["-u", "demo", "-d", "emotion", "-p", "lora", "--corpus", "manifest", "--data", data,
               "--protocol", folds, "--out", tmp_path, "-n", "r", *SHORT, *PROBE]  # fmt: skip
    assert call(*command) == 0
    assert history(tmp_path / "r")[0]["step"] == 0
    assert history(tmp_path / "r", stage=1)[0]["step"] > 0
    assert verify(tmp_path / "r") == []


def test_a_first_stage_that_is_the_probe_is_refused(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = STAGED[0]["stages"][0] | {"method": "none"}
    staged = [STAGED[0] | {"stages": [first, STAGED[0]["stages"][1] | {"freeze": []}]}]
    data = manifest(demo_corpus, tmp_path / "clips.csv")
    folds = protocol(tmp_path / "staged.json", "toy-staged", "emotion", staged)
    command = ["-u", "demo", "-d", "emotion", "-p", "lora", "--corpus", "manifest", "--data", data,
               "--protocol", folds, "--out", tmp_path, "-n", "r", *SHORT, *PROBE]  # fmt: skip
    assert call(*command) == 2
    assert "stage first of toy-staged trains the head alone" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["none", "ws"])
def test_what_is_the_probe_cannot_start_from_it(
    method: str, demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo_run(demo_corpus, tmp_path, *PROBE, method=method) == 2
    error = capsys.readouterr().err
    assert f"-p {method} is that probe itself" in error and error.count("\n") == 1
    assert demo_run(demo_corpus, tmp_path, *PROBE, "-o", "cache.enabled=false") == 2
    assert "set cache.enabled=true, or head.init=random" in capsys.readouterr().err


def test_its_keys_are_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    run = TrainKeys(lr=3.0, epochs=1, select="uar", class_weights="balanced", precision="bf16")
    run.sampling = "balanced"
    keys = probe_keys("ravdess-6fold", run)
    assert (keys.lr, keys.epochs, keys.patience, keys.choose) == (1e-3, 200, 20, "best")
    assert (keys.select, keys.class_weights, keys.precision) == ("uar", "balanced", "bf16")
    assert keys.sampling == "balanced"
    superb = probe_keys("iemocap-superb-random-dev", run)
    assert (superb.lr, superb.steps, superb.epochs) == (1e-4, 30_000, None)


# ---- once for all ---------------------------------------------------------------------------


def test_made_once_for_all_methods_and_listed(
    demo_corpus: Path, tmp_path: Path, cache: Path, made: list[str]
) -> None:
    assert demo_run(demo_corpus, tmp_path, *PROBE, name="a") == 0
    assert demo_run(demo_corpus, tmp_path, *PROBE, method="partial:1", name="b") == 0
    assert demo_run(demo_corpus, tmp_path, *PROBE, "-o", "train.lr=1e-4", name="c") == 0
    assert made == ["fold 1 (probe) seed 0"] and len(kept_files(cache)) == 1
    # What it took is told by each that starts from it.
    a, b = (fold_of(tmp_path / n)["probe"] for n in "ab")
    assert a == b and a["seconds"] > 0 and a["frozen_seconds"] > 0
    both = ("--fold", "1,2", "--seed", "0,1")
    assert demo_run(demo_corpus, tmp_path, *PROBE, *both, name="d") == 0
    assert len(made) == 4 and len(kept_files(cache)) == 4
    assert len({p.parent for p in kept_files(cache)}) == 1
    (listed,) = [f for f in folders(cache) if f.key["start"] == "probe"]
    (row,) = [line for line in table([listed]).splitlines() if "probe, superb" in line]
    assert " 4 " in row and "demo" in row
    assert remove(listed) and not kept_files(cache)
    assert demo_run(demo_corpus, tmp_path, *PROBE, name="e") == 0
    assert len(made) == 5
    assert scores(tmp_path / "e") == scores(tmp_path / "a")


def keys_of(corpus: Path, out: Path, **changes: Any) -> tuple[str, str]:
    session, work = opened(corpus, out, **changes)
    frozen, frozen_work = starting._frozen_run(session, work)
    shared = json.dumps(shared_key(frozen), sort_keys=True)
    return shared, own_key(session.plan, frozen_work.fold.stages[0], work.seed)


SAME: dict[str, Any] = {
    "method": "partial:1+wg", "train__lr": 1e-4, "train__epochs": 7, "train__batch_seconds": 5.0,
    "train__precision": "bf16", "upstream__dropout": True, "folds": "1,2", "seeds": [0, 1],
    "train__schedule": "linear", "train__choose": "last", "train__patience": None,
}  # fmt: skip
SHARED: list[dict[str, Any]] = [
    {"head__hidden": 64}, {"head__layers": "last"}, {"head__name": "conv"},
    {"head__standardise": True}, {"train__select": "accuracy"},
    {"train__class_weights": "balanced"}, {"train__sampling": "balanced"},
    {"cache__dtype": "fp16"}, {"cache__precision": "bf16"}, {"train__deterministic": True},
]  # fmt: skip
OWN: list[dict[str, Any]] = [{"seeds": [1]}, {"folds": "2"}]


def test_its_keys_hold_what_decides_it_and_nothing_else(demo_corpus: Path, tmp_path: Path) -> None:
    shared, own = keys_of(demo_corpus, tmp_path)
    assert keys_of(demo_corpus, tmp_path, **SAME) == (shared, own)
    for changes in SHARED:
        found = keys_of(demo_corpus, tmp_path, **changes)
        torch.use_deterministic_algorithms(False)
        assert found[0] != shared and found[1] == own, changes
    for changes in OWN:
        found = keys_of(demo_corpus, tmp_path, **changes)
        assert found[0] == shared and found[1] != own, changes
    # In a head on frames the training's precision is the run's.
    conv = {"head__name": "conv"}
    one = keys_of(demo_corpus, tmp_path, **conv)
    assert keys_of(demo_corpus, tmp_path, **conv, train__precision="bf16")[0] != one[0]


def test_other_weights_are_another_probe(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emopeft.downstream.runs import session as sessions

    shared, own = keys_of(demo_corpus, tmp_path)
    load = sessions.upstream_of

    def other(keys: Any) -> Any:
        upstream = load(keys)
        with torch.no_grad():
            next(upstream.blocks.parameters()).mul_(1.5)
        return upstream

    monkeypatch.setattr(sessions, "upstream_of", other)
    found = keys_of(demo_corpus, tmp_path)
    assert found[0] != shared and found[1] == own


def damage(kind: str, tensors: Path) -> None:
    facts = tensors.with_suffix(".json")
    if kind == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-10])
    elif kind == "flipped":
        data = bytearray(tensors.read_bytes())
        data[-5] ^= 1
        tensors.write_bytes(bytes(data))
    elif kind == "no JSON":
        facts.write_text("{")
    elif kind == "other keys":
        facts.write_text(json.dumps(read(facts) | {"more": 1}))
    elif kind == "no tensors":
        tensors.unlink()
    else:  # true to its checksum
        state = load_file(tensors)
        name = "classifier.bias"
        state[name] = {
            "NaN": torch.full_like(state[name], torch.nan),
            "shape": torch.zeros(9),
            "type": state[name].double(),
        }[kind]
        save_file(state, tensors)
        facts.write_text(json.dumps(read(facts) | {"sha256": file_digest(tensors)}))


@pytest.mark.parametrize(
    "kind", ["cut", "flipped", "no JSON", "other keys", "no tensors", "NaN", "shape", "type"]
)
def test_a_damaged_one_is_made_again(
    kind: str, demo_corpus: Path, tmp_path: Path, cache: Path, made: list[str]
) -> None:
    session, work = opened(demo_corpus, tmp_path)
    first = start_of(session, work)
    (tensors,) = kept_files(cache)
    before = tensors.read_bytes()
    damage(kind, tensors)
    again = start_of(session, work)
    assert len(made) == 2 and tensors.read_bytes() == before
    assert first is not None and again is not None
    assert all(torch.equal(first.state[n], again.state[n]) for n in first.state)
    assert start_of(session, work) is not None and len(made) == 2


def test_one_that_cannot_be_read_stays(demo_corpus: Path, tmp_path: Path, cache: Path) -> None:
    session, work = opened(demo_corpus, tmp_path)
    start_of(session, work)
    (tensors,) = kept_files(cache)
    tensors.unlink()
    tensors.mkdir()  # opening it fails, whoever asks
    with pytest.raises(UserError, match="nothing was deleted"):
        start_of(session, work)


def test_two_at_once_make_it_once(
    demo_corpus: Path, tmp_path: Path, made: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    session, work = opened(demo_corpus, tmp_path)
    frozen, frozen_work = starting._frozen_run(session, work)
    kept = KeptStates(Path(os.environ["EMOPEFT_CACHE"]), PROBES, shared_key(frozen), "demo")
    which = own_key(session.plan, frozen_work.fold.stages[0], 0)
    locked, may_end = threading.Event(), threading.Event()

    def other() -> None:
        with kept.making(which):
            locked.set()
            may_end.wait(60)
            kept.write(which, *starting._made(frozen, frozen_work))

    thread = threading.Thread(target=other)
    thread.start()
    locked.wait(60)
    threading.Timer(1.5, may_end.set).start()
    start = start_of(session, work)
    thread.join()
    assert start is not None and len(made) == 1
    assert "waiting for another process that trains the same frozen probe" in caplog.text


# ---- what it counts as ----------------------------------------------------------------------


def test_the_start_may_win(demo_corpus: Path, tmp_path: Path, cache: Path) -> None:
    """A training that spoils everything ends with the probe."""
    assert demo_run(demo_corpus, tmp_path, *PROBE, "-o", "train.lr=1") == 0
    (stage,) = fold_of(tmp_path / "r")["stages"]
    result = stage["result"]
    assert result["best_step"] == 0 and result["steps"] == 10
    assert [h["step"] for h in result["history"]] == [0, 5, 10]
    assert "loss" not in result["history"][0] and result["history"][1]["loss"] > 0
    (kept,) = kept_files(cache)
    adapter = load_file(tmp_path / "r" / "fold1_seed0" / "adapter.safetensors")
    for name, tensor in load_file(kept).items():
        assert torch.equal(adapter[f"head.{name}"], tensor)
    assert evaluate(tmp_path / "r")[0]["difference"] < 1e-4
    # A search compares each rate's own best, the start among them.
    search = ("-o", "train.tune=lr", "-o", "train.lr_grid=[1.0, 2.0]")
    assert demo_run(demo_corpus, tmp_path, *PROBE, *search, name="s") == 0
    tried = fold_of(tmp_path / "s")["stages"][0]["result"]["tried"]
    assert set(tried.values()) == {fold_of(tmp_path / "s")["probe"]["dev"]["uar"]}


LAST = ("-o", "train.choose=last", "-o", "train.patience=null", "-o", "train.schedule=linear")


def test_the_last_state_is_chosen_where_asked(demo_corpus: Path, tmp_path: Path) -> None:
    assert demo_run(demo_corpus, tmp_path, *PROBE, *LAST, "-o", "train.lr=1", name="r") == 0
    result = fold_of(tmp_path / "r")["stages"][0]["result"]
    assert result["best_step"] == result["steps"] == 10
    assert result["history"][0]["uar"] > result["history"][-1]["uar"] == result["dev"]["uar"]
    assert evaluate(tmp_path / "r")[0]["difference"] < 1e-4
    # A search goes by what would be kept: the last state of each rate.
    search = ("-o", "train.tune=lr", "-o", "train.lr_grid=[1.0, 3e-3]")
    assert demo_run(demo_corpus, tmp_path, *PROBE, *LAST, *search, name="s") == 0
    searched = fold_of(tmp_path / "s")["stages"][0]["result"]
    assert searched["lr"] == 3e-3 and searched["tried"]["1"] == result["dev"]["uar"]


def test_the_last_state_of_a_frozen_probe(demo_corpus: Path, tmp_path: Path) -> None:
    assert demo_run(demo_corpus, tmp_path, *LAST, method="none") == 0
    result = fold_of(tmp_path / "r")["stages"][0]["result"]
    assert result["best_step"] == result["steps"] == result["history"][-1]["step"]


def test_dev_may_not_end_what_is_chosen_without_it(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo_run(demo_corpus, tmp_path, "-o", "train.choose=last") == 2
    error = capsys.readouterr().err
    assert "train.patience=20" in error and "set train.patience=null" in error
    more = ("-o", "train.patience=null", "-o", "train.schedule=plateau")
    assert demo_run(demo_corpus, tmp_path, "-o", "train.choose=last", *more) == 2
    assert "train.schedule=linear or cosine" in capsys.readouterr().err


# ---- what is written ------------------------------------------------------------------------


def test_the_record_tells_of_it(demo_corpus: Path, tmp_path: Path) -> None:
    assert demo_run(demo_corpus, tmp_path, *PROBE, "--fold", "1,2") == 0
    run = tmp_path / "r"
    assert verify(run) == []
    before = (run / "result.json").read_bytes()
    write_record(run)
    assert (run / "result.json").read_bytes() == before
    record = read(run / "result.json")
    probes = [fold["probe"] for fold in record["folds"]]
    assert record["cost"]["probe_seconds"] == pytest.approx(sum(p["seconds"] for p in probes))
    assert all(p["steps"] >= p["best_step"] > 0 and p["lr"] == 1e-3 for p in probes)
    assert record["cost"]["frozen_seconds"] > probes[0]["frozen_seconds"] > 0
    identity = record["identity"]["head"]
    assert identity["init"] == "probe" and identity["probe"]["epochs"] == 20
    assert "init" not in record["head"]
    assert "init" not in read(run / "fold1_seed0" / "adapter.json")["head"]
    # Neither can be there without the other.
    place = run / "fold1_seed0" / "fold.json"
    facts = read(place)
    place.write_text(json.dumps({k: v for k, v in facts.items() if k != "probe"}))
    with pytest.raises(UserError, match="'probe' must be there exactly where identity.head.init"):
        verify(run)


def test_without_it_nothing_is_said_of_it(demo_corpus: Path, tmp_path: Path) -> None:
    assert demo_run(demo_corpus, tmp_path) == 0
    record = read(tmp_path / "r" / "result.json")
    assert "probe" not in fold_of(tmp_path / "r") and "probe" not in record["folds"][0]
    assert "probe_seconds" not in record["cost"]
    assert record["identity"]["head"]["init"] == "random"
    assert history(tmp_path / "r")[0]["step"] == 5


# ---- interrupted ----------------------------------------------------------------------------


def test_interrupted_and_resumed_equals_uninterrupted(
    demo_corpus: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo_run(demo_corpus, tmp_path, *PROBE, name="whole") == 0
    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    optimise = Trainer._optimise
    for stop in (0, 3, 7):

        def interrupted(self: Trainer, batch: list[int], stop: int = stop) -> None:
            if self.step == stop:
                raise KeyboardInterrupt
            optimise(self, batch)

        monkeypatch.setattr(Trainer, "_optimise", interrupted)
        assert demo_run(demo_corpus, tmp_path, *PROBE) == 130
        for path in kept_files(cache):  # it is made again, and the same
            path.unlink()
    monkeypatch.setattr(Trainer, "_optimise", optimise)
    assert demo_run(demo_corpus, tmp_path, *PROBE) == 0
    assert scores(tmp_path / "r") == scores(tmp_path / "whole")
    assert history(tmp_path / "r") == history(tmp_path / "whole")
    adapters = [
        (tmp_path / name / "fold1_seed0" / "adapter.safetensors").read_bytes()
        for name in ("r", "whole")
    ]
    assert adapters[0] == adapters[1]
    assert not list((tmp_path / "r" / "fold1_seed0").rglob("*.pt"))


def test_killed_within_the_probe_equals_uninterrupted(
    demo_corpus: Path, tmp_path: Path, cache: Path, quick: Path
) -> None:
    assert demo_run(demo_corpus, tmp_path, *PROBE, name="whole") == 0
    forget()
    program = (
        "import time, pathlib, run_downstream as r, emopeft.downstream.training.probes as p, "
        "emopeft.downstream.data.recipe as d; shipped = d.default_recipe; "
        f"d.default_recipe = lambda p, kind: pathlib.Path({str(quick)!r}) if kind == 'frozen' "
        "else shipped(p, kind); "
        "p.SAVE_SECONDS = 0.0; count = p.Probe.count; "
        "p.Probe.count = lambda self, a: (count(self, a), print('step', flush=True), "
        "time.sleep(0.01)); r.entry_point()"
    )
    command = [sys.executable, "-c", program, "-u", "demo", "-d", "emotion", "-p", "lora",
               "--corpus", "demo", "--data", str(demo_corpus), "--fold", "1",
               "--out", str(tmp_path), "-n", "r", *SHORT, *PROBE]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    process.kill()
    process.communicate()
    assert (tmp_path / "r" / "fold1_seed0" / "probe" / "stage1.pt").exists()
    assert not kept_files(cache)
    assert demo_run(demo_corpus, tmp_path, *PROBE) == 0
    assert scores(tmp_path / "r") == scores(tmp_path / "whole")
    assert not list((tmp_path / "r" / "fold1_seed0").rglob("*.pt"))


def test_a_probe_that_diverges_is_a_failed_fold(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = starting.probe_keys

    def wild(*args: Any) -> Any:
        found = keys(*args)
        found.lr, found.optimizer, found.clip = 1e30, "sgd", None
        return found

    monkeypatch.setattr(starting, "probe_keys", wild)
    assert demo_run(demo_corpus, tmp_path, *PROBE) == 1
    facts = fold_of(tmp_path / "r")
    assert facts["status"] == "failed" and "would start from diverged" in facts["reason"]
    assert "probe" not in facts
