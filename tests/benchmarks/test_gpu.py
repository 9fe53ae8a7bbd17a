"""make gpu in its small form, on the CPU: the same code, tiny random models, seconds.

REVIEW B: what only a GPU can show is measured by one command, which is exercised here.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.driving import ROOT, hubert
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import agree, batteries, card
from benchmarks.gpu.operations import Operations
from benchmarks.gpu.report import write_page
from benchmarks.gpu.setting import ACTORS, Setting, pack
from emopeft.errors import UserError


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    work = tmp_path / "work"
    work.mkdir()
    return Setting("cpu", True, tmp_path / "none", work, tmp_path / "out")


def done(name: str, setting: Setting) -> dict[str, Any]:
    """A part's results, which can be written as JSON and shown as a table."""
    result = gpu.measured(name, setting)
    assert result["status"] == "done", result["why"]
    assert result["device"]["name"] and result["device"]["torch"] == torch.__version__
    assert result["table"].startswith("|")
    return json.loads(json.dumps(result["results"], allow_nan=False))


def test_job_trains_four_methods_and_keeps_their_records(setting: Setting) -> None:
    results = done("job", setting)
    assert list(results) == ["none", "lora", "partial:2", "full"]
    trained = [found["trainable"] for found in results.values()]
    assert trained == sorted(trained) and len(set(trained)) == 4
    assert all(0 <= found["uar"] <= 1 for found in results.values())
    kept = {p.relative_to(setting.out / "records").parts[0] for p in setting.out.rglob("*.csv")}
    assert kept == {"none", "lora", "partial2", "full"}
    assert not list(setting.out.rglob("*.safetensors"))


def test_two_sides_on_one_device_agree_to_the_bit(setting: Setting) -> None:
    results = done("agree", setting)
    assert set(results["tf32 off"]) == {"states, hubert-tiny", "features", "scores", "losses"}
    assert set(results["tf32 off"].values()) == set(results["tf32 on"].values()) == {0.0}
    assert results["beyond"] == []


def test_a_difference_beyond_its_limit_fails_the_part(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def side(setting: Setting, name: str, device: str, tf32: bool) -> dict[str, torch.Tensor]:
        off = 0.0 if name == "reference" else 3e-3
        return {"losses": torch.tensor([2.0, 1.0 + off]), "scores": torch.tensor([1.0, 0.5 + off])}

    monkeypatch.setattr(agree, "side", side)
    result = gpu.measured("agree", setting)
    assert result["status"] == "failed"
    assert result["why"] == "scores: 0.003 is more than 0.001"
    assert "losses" in result["table"]  # the numbers stay beside the reason
    assert agree.difference(torch.ones(3), torch.ones(2)) != 0  # NaN: another length


def test_throughput_puts_ours_beside_a_plain_loop(setting: Setting) -> None:
    results = done("throughput", setting)
    sides = [(row["what"], row["side"]) for row in results["rows"]]
    assert sides == [(what, side) for what in ("extraction", "lora") for side in ("plain", "ours")]
    plain = [row for row in results["rows"] if row["side"] == "plain"]
    assert all(row["audio_hours_per_second"] > 0 for row in plain)
    assert results["left_out"] == []


@pytest.mark.parametrize("kernel", [16, 17])
def test_operations_are_those_that_torch_counts(kernel: int) -> None:
    model = hubert("tiny").eval()
    model.config.num_conv_pos_embeddings = kernel
    with torch.random.fork_rng(devices=[]):
        model = type(model)(model.config).eval()
    model.set_attn_implementation("eager")
    operations = Operations.of(model.config, 8000)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.randn(1, 8000))
    assert operations.forward == counter.get_total_flops()
    assert operations.step("full", ours=False) == 3 * operations.forward
    assert operations.step("partial:3", ours=True) == 9 * operations.block
    assert operations.step("lora", ours=True) == 6 * operations.block


def test_batteries_are_counted_by_folder() -> None:
    text = """<testsuites><testsuite>
        <testcase classname="tests.upstream.test_contract" name="a[cuda]"/>
        <testcase classname="tests.upstream.test_contract" name="b[cuda]"><skipped/></testcase>
        <testcase classname="tests.peft_modules.test_battery" name="c[cuda]">
            <failure message="off by 1"/></testcase></testsuite></testsuites>"""
    counted = batteries.counts(text)
    assert counted["folders"] == {
        "tests/upstream": {"passed": 1, "failed": 0, "skipped": 1},
        "tests/peft_modules": {"passed": 0, "failed": 1, "skipped": 0},
    }
    assert counted["failures"] == ["tests.peft_modules.test_battery::c[cuda]: off by 1"]


def test_batteries_run_the_devices_cases(setting: Setting) -> None:
    results = done("batteries", setting)
    assert results["folders"]["tests/upstream"]["passed"] >= 4


def test_a_part_that_fails_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "job", "agree", "--device", "cpu"]
    command += ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    for part in ("job", "agree"):
        kept = json.loads((tmp_path / "out" / f"{part}.json").read_text())
        assert kept["status"] == "failed"
        assert "holds no clips.csv; fill it with" in kept["why"] or "encoder" in kept["why"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert page.count("**Failed**") == 2
    assert card.name_of("cpu") in page


def test_a_part_without_end_is_ended(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIMIT", 0.01)
    answer = gpu.in_process("job", setting)
    assert (answer["status"], answer["why"]) == ("failed", "it took longer than 0 s")


def test_the_page_without_results_says_so(tmp_path: Path) -> None:
    assert "None yet" in write_page(tmp_path, list(gpu.PARTS)).read_text()


def test_pack_fills_the_folder(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for actor in (*ACTORS, "23"):
        for emotion in ("01", "03", "04"):
            name = f"data/ravdess/Actor_{actor}/03-01-{emotion}-01-01-01-{actor}.flac"
            (shared / name).parent.mkdir(parents=True, exist_ok=True)
            (shared / name).write_bytes(b"clip")
    encoder = shared / "models" / "whisper-base-encoder"
    encoder.mkdir(parents=True)
    (encoder / "config.json").write_text('{"model_type": "whisper"}')
    said = pack(tmp_path / "data", shared)
    assert said.startswith(f"{tmp_path / 'data'}: 16 clips and an encoder")
    with (tmp_path / "data" / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"happy", "sad"}
    assert {row["speaker"]: row["split"] for row in rows} == ACTORS
    sexes = {(row["split"], row["sex"]) for row in rows}
    assert len(sexes) == 6  # both on every side
    assert all((tmp_path / "data" / row["path"]).is_file() for row in rows)
    full = Setting("cpu", False, tmp_path / "data", tmp_path, tmp_path)
    assert full.manifest().name == "clips.csv" and full.encoder().name == "encoder"
    with pytest.raises(UserError, match="set EMOPEFT_SHARED"):
        pack(tmp_path / "data", tmp_path / "empty")


def test_what_is_missing_is_named_with_the_packages_that_bring_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "lacking", lambda: {"soundfile": "soundfile cffi pycparser"})
    assert gpu.main(["job", "--device", "cpu"]) == 2
    assert "carry as wheels: soundfile cffi pycparser" in capsys.readouterr().err


OPTIONAL = """
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {"s3prl", "opensmile", "tensorboard", "espeakng_loader"}:
            return None
        return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Without
assert find_spec("s3prl") is None and find_spec("torch") is not None
import run_downstream
import emopeft.downstream.runs.run
from emopeft.upstream.catalogue import UPSTREAMS
assert len(list(UPSTREAMS)) > 30
"""


def test_training_needs_no_optional_package_to_import() -> None:
    """s3prl, opensmile, tensorboard and eSpeak are not there on a bare GPU machine."""
    ended = subprocess.run(
        [sys.executable, "-c", OPTIONAL], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_the_peak_is_that_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert card.peak_rate("NVIDIA H200", "bf16") == 989e12
    assert card.peak_rate("NVIDIA H100 PCIe", "bf16") == 756e12
    assert card.peak_rate("NVIDIA H100 80GB HBM3", "fp32") == 67e12
    assert card.peak_rate("Some CPU", "bf16") is None
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: False))
    with pytest.raises(UserError, match="torch finds no GPU here"):
        gpu.default_device()
