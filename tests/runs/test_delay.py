"""`emopeft delay`: nothing is said of time here, only of what is timed, how often, and shown."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from emopeft.commands import door
from emopeft.downstream.models import build
from emopeft.downstream.reports.delay import delay_of, delay_sections, rows_of
from emopeft.downstream.reports.sections import Grid, terminal
from emopeft.downstream.runs import delay as module
from emopeft.downstream.runs.delay import BASE, MERGED, TRAINED, Settings, measure
from emopeft.errors import UserError
from tests.models.folds import trained_fold

FEW = Settings(seconds=(0.1, 0.25), rounds=2, repeats=3, warm_up=1, device="cpu")


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained folds by method, on one base."""
    place = tmp_path_factory.mktemp("delay")
    return {
        method: trained_fold(place, method, seed)[0]
        for seed, method in enumerate(("lora", "prompt", "partial:1", "none"))
    }


def ticking() -> object:
    """A clock that goes on by a millisecond whenever it is asked."""
    times = iter(range(10**6))
    return lambda: next(times) / 1000


def test_merged_gives_the_same_scores(folds: dict[str, Path]) -> None:
    found = measure([folds["lora"]], FEW, clock=ticking())
    ways = {way.name: way for way in found.ways}
    assert list(ways) == [TRAINED, MERGED, BASE]
    wav = torch.randn(5000) * 0.1
    trained, merged, base = (ways[n].outputs(wav) for n in (TRAINED, MERGED, BASE))
    assert torch.allclose(trained, merged, atol=1e-5) and trained.shape == base.shape
    assert found.differences[ways[TRAINED].checkpoint] < 1e-5
    model, _ = build.restore(folds["lora"])
    layers = {type(m).__module__.partition(".")[0] for m in model.upstream.modules()}
    assert "peft" in layers  # so that merging had something to do


def test_counts_and_shape_of_what_is_measured(folds: dict[str, Path]) -> None:
    found = measure([folds["lora"], folds["none"]], FEW, clock=ticking())
    rows = rows_of(found)
    # The frozen one is the base of both, so it is not timed twice.
    assert [(r["way"], r["audio_seconds"]) for r in rows] == [
        (w, s) for w in (TRAINED, MERGED, TRAINED) for s in (0.1, 0.25)
    ]
    assert all(r["count"] == 6 and r["spread"] == pytest.approx(0, abs=1e-9) for r in rows)
    assert all(r["p50"] == pytest.approx(0.001) == pytest.approx(r["p95"]) for r in rows)
    assert rows[1]["real_time_factor"] == pytest.approx(0.001 / 0.25)
    assert found.machine["threads"] == torch.get_num_threads()


def test_why_there_is_no_merged_one(folds: dict[str, Path]) -> None:
    found = measure([folds["prompt"], folds["partial:1"]], FEW, clock=ticking())
    said = list(found.not_merged.values())
    assert "adds modules that the plain model has no place for" in said[0]
    assert "puts no module into the encoder" in said[1]
    text = terminal(delay_sections(found))
    assert text.count("not merged: ") == 2
    grid = next(p for p in delay_sections(found)[0].parts if isinstance(p, Grid))
    dashes = [row for row in grid.rows if row[1] == MERGED]
    assert len(dashes) == 2 and all(set(row[2:]) == {"–"} for row in dashes)
    assert all(len(row) == len(grid.headers) for row in grid.rows)


def test_a_restless_machine_is_said(folds: dict[str, Path]) -> None:
    times = iter(range(10**6))
    growing = measure([folds["none"]], FEW, clock=lambda: next(times) ** 2 / 1000)
    assert "something else is running" in terminal(delay_sections(growing))
    even = measure([folds["none"]], FEW, clock=ticking())
    assert "something else is running" not in terminal(delay_sections(even))


def test_decoding_has_its_share(folds: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 11_025), 22_050)
    found = measure([folds["none"]], FEW, audio=path, clock=ticking())
    assert found.file == "clip.wav, 0.50 s" and found.decoding is not None
    assert found.decoding.count == found.of_file[0].count == 6
    text = terminal(delay_sections(found))
    assert "decoding's share" in text and "50 %" in text  # the clock takes a millisecond for each


def test_threads_are_put_back(folds: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    settings = Settings(seconds=(0.1,), rounds=1, repeats=1, threads=before + 1, device="cpu")
    assert measure([folds["none"]], settings).machine["threads"] == before + 1
    assert torch.get_num_threads() == before
    monkeypatch.setattr(module, "_run", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure([folds["none"]], settings)
    assert torch.get_num_threads() == before


def test_the_command_writes_all_of_it(
    folds: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    flags = ["--seconds", "0.25,0.1", "--rounds", "2", "--repeats", "2", "--device", "cpu"]
    assert door.main(["delay", str(folds["lora"]), *flags, "--out", str(out)]) == 0
    assert "real-time factor" in capsys.readouterr().out
    assert {p.name for p in out.iterdir()} == {"delay.md", "delay.svg", "delay.json", "delay.csv"}
    data = json.loads((out / "delay.json").read_text())
    assert len(data["rows"]) == 6 and len(data["times"]) == 6
    assert all(np.shape(one["rounds"]) == (2, 2) for one in data["times"])
    with (out / "delay.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["p50"]) for row in rows] == [row["p50"] for row in data["rows"]]


def test_the_card_can_have_it(folds: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK", FEW)
    (section,) = delay_of(folds["none"])
    assert section.title == "Delay"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seconds", "0.001"], "takes clips of"),
        (["--seconds", "0"], "longer than 0"),
        (["--seconds", "nan"], "longer than 0"),
        (["--seconds", "a,b"], "must be numbers such as"),
        (["--threads", "0"], "whole number from 1"),
        (["--rounds", "x"], "whole number from 1"),
        (["--device", "abacus"], "cannot be used here"),
        (["--audio", "nowhere.wav"], "nowhere.wav"),
        (["--fold", "7"], None),
    ],
)
def test_mistakes_are_one_sentence(
    folds: dict[str, Path], flags: list[str], said: str | None,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    place = folds["none"] if said else tmp_path
    once = [x for flag in ("--rounds", "--repeats") if flag not in flags for x in (flag, "1")]
    assert door.main(["delay", str(place), *once, *flags]) == 2
    error = capsys.readouterr().err.strip()
    assert (said or "holds no trained fold") in error and "\n" not in error


def test_settings_refuse_nonsense() -> None:
    for wrong in ({"rounds": 0}, {"repeats": -1}, {"seconds": ()}, {"seconds": (1e9,)}):
        with pytest.raises(UserError):
            Settings(**wrong)  # type: ignore[arg-type]
