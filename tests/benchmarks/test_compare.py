"""Two checkouts by turns: ratios of rounds, and the figures that both sides have."""

import pytest

from benchmarks import compare
from benchmarks.driving import keys


def test_ratios_are_of_the_same_round() -> None:
    step, peak = "seconds_per_step", "peak_bytes"
    rounds = [
        ({step: 2.0, peak: 3e9}, {step: 1.0, peak: 2e9}),
        ({step: 2.0, peak: 3e9}, {step: 4.0, peak: 2e9}),
        ({step: 9.0}, {step: 9.0, peak: 2e9}),
    ]
    summary = compare.ratios(rounds)
    assert summary["seconds_per_step"] == {"this": 2.0, "other": 4.0, "ratios": [2.0, 0.5, 1.0]}
    assert summary["peak_bytes"]["ratios"] == [1.5, 1.5]
    row = compare.table({"A lora": summary}).splitlines()[2]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        "A lora", "seconds_per_step", "2 s", "4 s", "1.00", "0.50 to 2.00",
    ]  # fmt: skip


def test_another_folder_must_be_a_checkout(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["compare", str(tmp_path)])
    with pytest.raises(SystemExit):
        compare.main()
    assert "holds no run_downstream.py" in capsys.readouterr().err


def test_keys_are_written_as_yaml_reads_them() -> None:
    flags = keys(train_steps=1, train_epochs=None, cache_enabled=False, train_lr_grid=[0.1, 1e-5])
    assert flags[1::2] == [
        "train.steps=1", "train.epochs=null", "cache.enabled=false", "train.lr_grid=[0.1, 1.0e-05]",
    ]  # fmt: skip
