"""Two stages as runs: what is shared, where the second starts, what is measured in between."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from emopeft.downstream.feature_cache.folders import folders
from emopeft.downstream.records.record import verify, write_record
from emopeft.downstream.reports.tradeoff import tradeoff
from emopeft.downstream.runs.evaluate import evaluate
from emopeft.downstream.training.trainer import Trainer
from emopeft.errors import UserError
from tests.calls import call, read
from tests.records.cases import delete, put, tamper
from tests.runs.rated import manifest, protocol

SOURCE = {"train": ["ses3_F"], "dev": ["ses4_F"]}
TESTS = {"target": ["ses1_F"], "source": ["ses2_F"]}
FOLDS = [
    {
        "name": name,
        "tests": TESTS | {"target": [tested]},
        "stages": [{"name": "source", **SOURCE}, {"name": "target", "train": [own], "dev": [dev]}],
    }
    for name, tested, own, dev in (
        ("1", "ses1_F", "ses5_F", "ses4_M"),
        ("2", "ses1_M", "ses5_M", "ses4_M"),
    )
]
PLAIN = {
    "source": SOURCE,
    "target": {"train": ["ses5_F"], "dev": ["ses4_M"]},
    "joint": {"train": ["ses3_F", "ses5_F"], "dev": ["ses4_M"]},
}
Run = Callable[..., Path]


class Places:
    """The manifest, protocols on it, and the command that runs one."""

    def __init__(self, corpus: Path, root: Path):
        self.root, self.data = root, manifest(corpus, root / "clips.csv")
        self.transfer = self.protocol("toy-transfer", FOLDS)

    def protocol(self, name: str, folds: list[dict], **more: object) -> Path:
        place = protocol(self.root / f"{name}.json", name, "emotion", folds, "speaker")
        place.write_text(json.dumps(read(place) | more))
        return place

    def plain(self, name: str) -> Path:
        return self.protocol(f"toy-{name}", [{"name": "1", "tests": TESTS, **PLAIN[name]}])

    def command(self, place: Path, *more: object) -> list[object]:
        return ["-u", "demo", "-d", "emotion", "-p", "lora:r=2,alpha=4", "--corpus", "manifest",
                "--data", self.data, "--protocol", place, "-o", "train.epochs=2", "-o",
                "train.lr=5e-3", "-o", "train.batch_size=16", *more]  # fmt: skip


@pytest.fixture(scope="module")
def places(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(demo_corpus, tmp_path_factory.mktemp("transfer"))


@pytest.fixture(scope="module")
def run(places: Places) -> Run:
    """The folder of a run, which is trained once."""
    forget()

    def one(name: str, place: Path, *more: object) -> Path:
        if not (places.root / name).exists():
            assert call(*places.command(place, "--out", places.root, "-n", name, *more)) == 0
        return places.root / name

    return one


@pytest.fixture(scope="module")
def both(places: Places, run: Run) -> Path:
    return run("both", places.transfer)


def forget() -> None:
    """Take out all source's stages that are kept."""
    for folder in folders(Path(os.environ["EMOPEFT_CACHE"])):
        if folder.key.get("start") == "stage":
            shutil.rmtree(folder.path)


def table(run: Path, name: str = "predictions", fold: int = 1) -> bytes:
    return (run / f"fold{fold}_seed0" / f"{name}.csv").read_bytes()


def fold_of(run: Path, fold: int = 1) -> dict:
    return read(run / f"fold{fold}_seed0" / "fold.json")


def state(run: Path, fold: int = 1) -> dict[str, torch.Tensor]:
    return load_file(run / f"fold{fold}_seed0" / "adapter.safetensors")


def test_gain_and_forgetting_are_counted_from_what_is_kept(both: Path) -> None:
    assert verify(both) == []
    record = read(both / "result.json")
    for fold in record["folds"]:
        moments = fold["transfer"]["moments"]
        for metric in ("uar", "accuracy"):
            between, after = moments["between"], fold["metrics"]
            gain = after["target"][metric] - between["target"][metric]
            forgot = between["source"][metric] - after["source"][metric]
            assert fold["transfer"]["gain"][metric] == pytest.approx(gain)
            assert fold["transfer"]["forgetting"][metric] == pytest.approx(forgot)
        gained = [f["transfer"]["gain"]["uar"] for f in record["folds"]]
    summary = record["transfer"]
    assert summary["gain"]["uar"]["mean"] == pytest.approx(sum(gained) / 2)
    assert summary["gain"]["uar"]["std"] == pytest.approx(abs(gained[0] - gained[1]) / 2**0.5)
    assert summary["moments"]["after"]["target"] == record["summary"]["target"]
    assert {len(set(table(both, n).splitlines())) for n in ("before", "between")} == {49}
    assert table(both, "before") != table(both, "between") != table(both)
    before = (both / "result.json").read_bytes()
    write_record(both)
    assert (both / "result.json").read_bytes() == before


def test_the_source_stage_is_trained_once(
    places: Places, run: Run, both: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For folds, for what is frozen after it, and where it stands alone."""
    first, second = (fold_of(both, fold) for fold in (1, 2))
    assert [f["transfer"]["shared"] for f in (first, second)] == [False, True]
    assert first["stages"][0]["result"] == second["stages"][0]["result"]
    took = [[s["result"]["seconds"] for s in f["stages"]] for f in (first, second)]
    assert first["seconds"]["train"] == pytest.approx(sum(took[0]))
    assert second["seconds"]["train"] == pytest.approx(took[1][1])  # its own alone
    assert "source_seconds" not in read(both / "result.json")["cost"]
    trained: list[str] = []
    fit = Trainer.fit

    def fitting(self: Trainer) -> object:
        trained.append(self.label)
        return fit(self)

    monkeypatch.setattr(Trainer, "fit", fitting)
    frozen = run("frozen", places.transfer, "-o", "transfer.freeze=[lora.A]", "--fold", 1)
    alone = run("source", places.transfer, "-o", "transfer.strategy=source", "--fold", 1)
    assert trained == ["fold 1 seed 0 target"]
    assert table(frozen, "between") == table(both, "between") == table(alone)
    assert read(alone / "result.json")["cost"]["source_seconds"] > 0
    ended, began = state(alone), state(frozen)
    kept = [name for name in ended if "lora_A" in name]
    assert kept and all(torch.equal(ended[name], began[name]) for name in kept)
    assert fold_of(alone)["transfer"]["moments"].keys() == {"before"}
    (entry,) = read(alone / "result.json")["folds"]
    assert entry["transfer"]["gain"]["uar"] == entry["transfer"]["forgetting"]["uar"] == 0


def test_no_step_in_the_target_is_the_source(places: Places, run: Run) -> None:
    none = run("none", places.transfer, "-o", "transfer.target={steps: 0}", "--fold", 1)
    alone = run("source", places.transfer, "-o", "transfer.strategy=source", "--fold", 1)
    assert table(none) == table(alone) == table(none, "between")
    one, other = state(none), state(alone)
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    assert verify(none) == verify(alone) == []


@pytest.mark.parametrize("name", PLAIN)
def test_one_stage_of_it_is_the_plain_run(name: str, places: Places, run: Run) -> None:
    staged = run(name, places.transfer, "-o", f"transfer.strategy={name}", "--fold", 1)
    plain = run(f"plain {name}", places.plain(name))
    assert table(staged) == table(plain) and table(staged, "dev") == table(plain, "dev")
    assert verify(staged) == [] and "transfer" not in fold_of(plain)
    if name != "source":
        (fold,) = read(staged / "result.json")["folds"]
        assert fold["transfer"]["gain"]["uar"] is None


@pytest.mark.parametrize("stop", [2, 7])
def test_killed_in_either_stage_and_resumed(
    places: Places, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    forget()
    optimise, done = Trainer._optimise, [0]

    def stops(self: Trainer, batch: list[int]) -> None:
        optimise(self, batch)
        done[0] += 1
        if done[0] == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr("emopeft.downstream.training.trainer.SAVE_SECONDS", 0.0)
    command = places.command(places.transfer, "--fold", 1, "--out", tmp_path, "-n", "r")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimise", stops)
        assert call(*command) == 130
    done[0] = 100
    monkeypatch.setattr(Trainer, "_optimise", stops)
    assert call(*command) == 0
    assert done[0] == 100 + 8 - (stop - 1)  # nothing that was saved is done again
    for name in ("predictions", "before", "between", "dev"):
        assert table(tmp_path / "r", name) == table(both, name)
    assert not list(tmp_path.rglob("*.pt"))


CUTS = {
    "a moment's table": (lambda p: (p / "between.csv").unlink(), "between.csv"),
    "another's numbers": (lambda p: shutil.copy(p / "before.csv", p / "between.csv"), "between"),
    "a moment's number": (
        lambda p: tamper(p / "fold.json",
                         put(0.99, "transfer", "moments", "between", "target", "uar")),
        "between, target: uar is recorded as 0.99",
    ),
    "a moment": (lambda p: tamper(p / "fold.json", delete("transfer", "moments", "between")),
                 "'transfer.moments' must hold before and between"),
    "the strategy": (lambda p: tamper(p / "fold.json", put(["ba"], "transfer", "freeze")),
                     "identity.transfer is not that of the facts"),
    "all of it": (lambda p: tamper(p / "fold.json", delete("transfer")), "'transfer' must be"),
}  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
def test_a_fold_that_contradicts_itself_is_refused(cut: str, both: Path, tmp_path: Path) -> None:
    place = shutil.copytree(both / "fold1_seed0", tmp_path / "r" / "fold1_seed0")
    shutil.copy(both / "result.json", tmp_path / "r")
    spoil, says = CUTS[cut]
    spoil(place)
    with pytest.raises(Exception, match=says):
        verify(tmp_path / "r")


def test_an_edited_record_is_found(both: Path, tmp_path: Path) -> None:
    for number, change in enumerate([
        put(0.5, "transfer", "gain", "uar", "mean"),
        put(0.5, "folds", 0, "transfer", "forgetting", "uar"),
        delete("transfer"),
    ]):  # fmt: skip
        place = shutil.copytree(both, tmp_path / str(number))
        tamper(place, change)
        assert "transfer" in verify(place)[0]


def test_gain_against_forgetting(places: Places, run: Run, tmp_path: Path) -> None:
    """Of one domain alone against the source's end of the others, on the same fold."""
    source, target, joint = (
        run(name, places.transfer, "-o", f"transfer.strategy={name}", "--fold", 1) for name in PLAIN
    )
    ends = {place: fold_of(place)["metrics"] for place in (source, target, joint)}
    lines = tradeoff([joint, source, target], tmp_path / "t.svg").splitlines()
    for place, name in ((target, "target only"), (joint, "joint"), (source, "source only")):
        gain = ends[place]["target"]["uar"] - ends[source]["target"]["uar"]
        forgot = ends[source]["source"]["uar"] - ends[place]["source"]["uar"]
        (line,) = [one for one in lines if name in one]
        assert line.split()[-3:] == [f"{100 * gain:.2f}", f"{100 * forgot:.2f}", "1"]
    assert "target only" in (tmp_path / "t.svg").read_text()
    with pytest.raises(UserError, match="has no stages source and target"):
        tradeoff([run("plain source", places.plain("source"))], None)


# ---- from another run -------------------------------------------------------------------------


def test_a_run_in_place_of_the_source_stage(places: Places, run: Run, both: Path) -> None:
    """Its end is the stage's, so that what follows is the same, in a plan of one stage, too."""
    source = run("plain source", places.plain("source"))
    flags = ("--init-from", source, "--fold", 1)
    staged = run("from", places.transfer, *flags)
    plain = run("plain from", places.plain("target"), *flags)
    assert table(staged) == table(plain) == table(both)
    assert table(staged, "between") == table(both, "between") == table(source)
    assert verify(staged) == verify(plain) == []
    assert all(one["difference"] < 1e-4 for one in evaluate(plain))
    for one in (staged, plain):
        origin = fold_of(one)["transfer"]["origin"]
        assert (origin["run"], origin["fold"], origin["head"]) == ("plain source", "1", "kept")
        assert origin["plan"] == fold_of(source)["plan"]["hash"]
        assert str(places.root) not in json.dumps(origin)
    assert [s["result"] is None for s in fold_of(staged)["stages"]] == [True, False]


def test_a_new_last_layer_only_for_other_classes(
    places: Places, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run("plain source", places.plain("source"))
    folds = [{"name": "1", "test": ["ses1_F"], **PLAIN["target"]}]
    labels = {name: name for name in ("sad", "happy", "angry", "neutral")}  # in another order
    turned = places.protocol("toy-turned", folds, classes=list(labels), labels=labels)
    other = run("turned", turned, "--init-from", source, "-o", "train.steps=0")
    same = run("same", places.protocol("toy-same", folds), "--init-from", source, "-o",
               "train.steps=0")  # fmt: skip
    ended, new, kept = state(source), state(other), state(same)
    changed = {name for name in ended if not torch.equal(ended[name], new[name])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}
    assert all(torch.equal(ended[name], kept[name]) for name in ended)
    heads = [fold_of(one)["transfer"]["origin"]["head"] for one in (other, same)]
    assert heads == ["replaced", "kept"]


def test_a_run_that_has_heard_the_tests_is_refused(
    places: Places, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run("plain source", places.plain("source"))
    folds = [{"name": "1", "test": ["ses4_F"], "dev": ["ses4_M"], "train": ["ses5_F"]}]
    heard = places.protocol("toy-heard", folds)
    command = places.command(heard, "--init-from", source, "--out", tmp_path)
    assert call(*command) == 2
    assert "chosen by speaker manifest/ses4_F, who is tested in fold 1" in capsys.readouterr().err
    # The same voice under another name is heard all the same.
    rows = places.data.read_text().splitlines()
    other = tmp_path / "clips.csv"
    other.write_text("\n".join([r.replace(",ses4_F,", ",somebody,") for r in rows]) + "\n")
    folds[0]["test"] = ["somebody"]
    renamed = places.protocol("toy-renamed", folds)
    command = [other if word == places.data else word for word in
               places.command(renamed, "--init-from", source, "--out", tmp_path)]  # fmt: skip
    assert call(*command) == 2
    assert "chosen by the audio of manifest/" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.pt"))
