"""A finished run's own tests in other conditions: computed once, kept, checked when read."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from emopeft.commands.conditions import words_of
from emopeft.commands.door import main as door
from emopeft.downstream.corpora.audio import SAMPLE_RATE, decode
from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.feature_cache import extracting
from emopeft.downstream.models.build import restore
from emopeft.downstream.records import conditions as files
from emopeft.downstream.records.folds import read_fold
from emopeft.downstream.records.record import examine
from emopeft.downstream.runs import conditions as module
from emopeft.downstream.runs.checkpoints import outputs_of_clip
from emopeft.downstream.runs.conditions import test_conditions as evaluate_in
from emopeft.downstream.runs.evaluate import plan_of_run, recipe_of_run
from emopeft.downstream.runs.rows import crowd_of
from emopeft.downstream.views.base import Clip, Drawing, View, parse_view
from emopeft.errors import UserError
from emopeft.numerics import Numerics
from tests.calls import call, demo_run, read

# Cut short, so that they are soon computed.
NOISY, BABBLE, SHORT = (
    "excerpt:seconds=0.3+noise:snr=0",
    "excerpt:seconds=0.3+babble:snr=5",
    "excerpt:seconds=0.3",
)
VIEWS = [parse_view(text) for text in (NOISY, BABBLE, SHORT)]
FOLD = "fold1_seed0"


@pytest.fixture(scope="module")
def clean(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen probe and a LoRA run of fold 1."""
    out = tmp_path_factory.mktemp("runs")
    for method in ("none", "lora"):
        assert demo_run(demo_corpus, out, method=method, name=method) == 0
    return out


@pytest.fixture(scope="module")
def tested(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, in all conditions."""
    out = tmp_path_factory.mktemp("tested") / "runs"
    shutil.copytree(clean, out)
    for name in ("none", "lora"):
        (one,), notes = evaluate_in(out / name, VIEWS)
        assert one.computed == 3 and notes == []
    return out


@pytest.fixture
def own(tested: Path, tmp_path: Path) -> Path:
    """A tested probe that a test may change; its fold's folder."""
    shutil.copytree(tested / "none", tmp_path / "none")
    return tmp_path / "none" / FOLD


def rows(folder: Path) -> dict[tuple[str, str], Any]:
    """What each condition's rows say, by condition and id."""
    fold = read_fold(folder)
    assert fold is not None
    found = files.read_conditions(folder, fold)
    return {(c.facts.view, r.id): r.values for c in found for r in c.rows}


def counted(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> list[Any]:
    """Count the calls of a function; what it gives of each."""
    calls, original = [], getattr(where, name)

    def spy(*arguments: Any, **keys: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **keys)

    monkeypatch.setattr(where, name, spy)
    return calls


def forbid(monkeypatch: pytest.MonkeyPatch, where: Any, *names: str) -> None:
    for name in names:
        monkeypatch.setattr(where, name, lambda *a, **k: pytest.fail("computed again"))


# ---- what is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "lora"])
def test_the_clean_tests_by_this_way_are_those_of_the_run(clean: Path, method: str) -> None:
    folder = clean / method / FOLD
    fold = read_fold(folder)
    assert fold is not None
    plan = plan_of_run(clean / method)
    tester = module._Tester(folder, fold, recipe_of_run(clean / method), plan, None)
    own, _ = tester.predicted(plan.fold("1"), View(), None)
    assert [row.id for row in own] == [row.id for row in fold.tests]
    for one, recorded in zip(own, fold.tests, strict=True):
        assert (one.traits, one.speaker, one.test) == (
            recorded.traits, recorded.speaker, recorded.test,
        )  # fmt: skip
        for name, value in recorded.values.items():
            same = value if isinstance(value, str) else pytest.approx(value, abs=1e-6)
            assert one.values[name] == same


@pytest.mark.parametrize("method", ["none", "lora"])
def test_rows_are_those_of_the_waveforms_themselves(tested: Path, method: str) -> None:
    """No cache and no batch: so no view is taken for another's, and order does not matter."""
    folder, plan = tested / method / FOLD, plan_of_run(tested / method)
    model, config = restore(folder)
    found = rows(folder)
    crowd = crowd_of(plan, plan.fold("1").stages[0])
    for view in VIEWS:
        for e in plan.fold("1").tests["test"][::16]:
            clip = Clip(plan.audio[e.uid], e.utterance.speaker_uid, crowd)
            wav = Drawing(view, clip).of(decode(e.utterance.path, SAMPLE_RATE))
            outputs = outputs_of_clip(
                model, torch.from_numpy(wav), Numerics.of(config["numerics"]), ClipKeys()
            )
            scores = torch.softmax(outputs.double(), -1).tolist()
            said = found[view.spelling, f"{e.uid}@{view.spelling}"]
            named = [said[f"score_{name}"] for name in plan.task.classes]
            assert named == pytest.approx(scores, abs=1e-5), view.spelling
    by_view = [[v for (name, _), v in found.items() if name == view.spelling] for view in VIEWS]
    assert by_view[0] != by_view[1] != by_view[2] != by_view[0]


def test_the_voices_that_babble_are_of_the_training_part(tested: Path) -> None:
    plan = plan_of_run(tested / "none")
    fold = read_fold(tested / "none" / FOLD)
    assert fold is not None
    of = {c.facts.view: c.facts for c in files.read_conditions(tested / "none" / FOLD, fold)}
    crowds = {name: crowd_of(plan, plan.fold(name).stages[0]) for name in ("1", "2")}
    assert of[BABBLE].crowd == crowds["1"].digest != crowds["2"].digest
    assert of[NOISY].crowd is None
    train = {row.speaker for row in fold.examples if row.part == "train"}
    assert {v.speaker for v in crowds["1"].voices} == train
    assert not train & {row.speaker for row in fold.examples if row.part != "train"}


# ---- computed once ------------------------------------------------------------------------------


def test_what_is_there_is_not_computed_again(
    tested: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (own / files.ROWS).read_bytes()
    forbid(monkeypatch, module, "restore", "write_conditions")
    (again,), _ = evaluate_in(own.parent, VIEWS[::-1])
    assert again.computed == 0
    assert [c.facts.view for c in again.conditions] == [SHORT, BABBLE, NOISY]
    assert (own / files.ROWS).read_bytes() == before


def test_the_frozen_part_is_shared_and_the_order_says_nothing(
    tested: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run of the same frozen encoder; other batches of what it computes itself."""
    before = rows(own)
    for name in (files.FACTS, files.ROWS):
        (own / name).unlink()
    recipe = yaml.safe_load((own.parent / "recipe.yaml").read_text())
    recipe["train"]["batch_seconds"] = 1.0
    (own.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    forbid(monkeypatch, extracting, "frozen_items", "continued_items")
    (again,), _ = evaluate_in(own.parent, VIEWS[::-1])
    assert again.computed == 3
    for key, values in rows(own).items():
        for name, value in before[key].items():
            same = value if isinstance(value, str) else pytest.approx(value, abs=1e-6)
            assert values[name] == same


def test_another_checkpoint_is_noticed_and_tested_again(own: Path) -> None:
    before = rows(own)
    path = own / "adapter.safetensors"
    tensors = load_file(path)
    save_file({k: t + 0.3 if k.endswith("bias") else t for k, t in tensors.items()}, path)
    (again,), _ = evaluate_in(own.parent, [parse_view(SHORT)])
    assert again.computed == 1
    after = rows(own)
    assert after.keys() == before.keys()
    changed = {view for view, id_ in after if after[view, id_] != before[view, id_]}
    assert changed == {SHORT}


def test_a_stopped_one_goes_on(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(own)
    for name in (files.FACTS, files.ROWS):
        (own / name).unlink()
    original = module._Tester.measured

    def second(self: Any, planned: Any, view: View, *rest: Any) -> Any:
        if view == VIEWS[1]:
            raise KeyboardInterrupt
        return original(self, planned, view, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module._Tester, "measured", second)
        evaluate_in(own.parent, VIEWS)
    assert {view for view, _ in rows(own)} == {NOISY}
    calls = counted(monkeypatch, module, "outputs_of")
    evaluate_in(own.parent, VIEWS)
    assert len(calls) == 2 and rows(own) == before


def test_nothing_else_minds_the_two_files(
    clean: Path, tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("none", "lora"):
        checked = examine(tested / name)
        assert checked.problems == [] and checked.warnings == []
        assert checked.data == examine(clean / name).data
        for file in ("result.json", "predictions.csv", f"{FOLD}/fold.json"):
            assert (tested / name / file).read_bytes() == (clean / name / file).read_bytes()
    assert door(["export", str(tested / "lora"), str(tmp_path / "out")]) == 0
    assert not list((tmp_path / "out").glob("conditions*"))
    assert door(["import", str(tmp_path / "out"), str(tmp_path / "back")]) == 0
    assert door(["board", str(tested), "--out", str(tmp_path / "board")]) == 0
    capsys.readouterr()


# ---- asked for wrongly --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("noise,telephone,excerpt:seconds=1.5", ["noise", "telephone", "excerpt:seconds=1.5"]),
        ("noise:snr=5,kind=pink,telephone", ["noise:snr=5,kind=pink", "telephone"]),
        ("noise:snr=5,kind=pink+reverb|mp3", ["noise:snr=5,kind=pink+reverb", "mp3"]),
        ("pitch+reverb:rt60=1,drr=3,short", ["pitch+reverb:rt60=1,drr=3", "short"]),
        ("noise:folder=/a:b,snr=3,room", ["noise:folder=/a:b,snr=3", "room"]),
        (" standard ", ["standard"]),
        ("kind=pink,noise", ["kind=pink", "noise"]),
    ],
)
def test_conditions_are_told_apart(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--conditions", "noise,,room"], "a name is empty"),
        (["--conditions", "clean"], "the clean tests are in the run already"),
        (["--conditions", "standart"], "sets of conditions: noise, babble"),
        (["--conditions", "gain:db=6"], "changes nothing that demo sees"),
        (["--conditions", "kind=pink"], "unknown transformation 'kind=pink'"),
        (["--conditions", "noise", "--leaks"], "--leaks does not go with"),
        (["--conditions", "noise", "--corpus", "emodb"], "--corpus does not go with"),
        (["--conditions", "noise", "--seed", "7"], "no trained fold 1 of seed 7"),
    ],
)
def test_a_wrong_wish_is_one_sentence(
    clean: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door(["evaluate", str(clean / "none"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list((clean / "none" / FOLD).glob("conditions*"))


def test_the_card_s_command_and_its_table(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("-m", "evaluate", "--run", own.parent, "--conditions", SHORT) == 0
    shown = capsys.readouterr().out
    recorded = read(own.parent / "result.json")["summary"]["test"]["uar"]["mean"]
    assert re.search(rf"^clean .*{100 * recorded:.2f}", shown, re.MULTILINE)
    assert f"\n{SHORT} " in shown and "0 of 1 tests" in shown


def test_unscored_tests_and_unfinished_folds_are_left_out(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = read_fold(own)
    assert fold is not None
    facts = fold.facts.model_copy(update={"unscored": {"blind": 1}})
    blind = dataclasses.replace(fold, facts=facts, unscored=fold.tests[:1])
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_fold", lambda folder: blind)
        _, notes = evaluate_in(own.parent, VIEWS)
    assert notes == [f"{FOLD}: blind is unscored, and left out"]
    (own / "fold.json").unlink()
    with pytest.raises(UserError, match="no finished fold .* is not finished; run it again"):
        evaluate_in(own.parent, VIEWS)
