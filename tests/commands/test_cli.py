"""The command line as a user meets it: defaults, lists, dry run, and mistakes on purpose."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import HubertConfig, HubertModel

from emopeft.commands import card
from emopeft.commands.run import recipe_of
from emopeft.downstream.data.prepare import prepare
from emopeft.downstream.models.checkpoint import SEAL
from emopeft.errors import UserError
from emopeft.units import percent
from tests.calls import call, demo_run, read
from tests.shared import SHARED, needs_shared


def fails(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """Exit status 2 and an error without traceback; returns it."""
    assert call(*argv) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and "Traceback" not in captured.err
    return captured.err


def recipe(*argv: object):
    return recipe_of(card.parser().parse_args([str(a) for a in argv]))


# ---- the user's own line ----------------------------------------------------------------------


def test_the_users_own_line_needs_no_more_than_the_place_of_a_corpus(
    monkeypatch: pytest.MonkeyPatch, demo_corpus: Path
) -> None:
    monkeypatch.delenv("EMOPEFT_IEMOCAP", raising=False)
    line = ("-u", "hubert", "-d", "emotion", "-p", "lora")
    with pytest.raises(UserError, match="EMOPEFT_IEMOCAP"):
        prepare(recipe(*line))
    monkeypatch.setenv("EMOPEFT_DEMO", str(demo_corpus))
    data = prepare(recipe(*line))
    assert [c.name for c in data.corpora] == ["demo"] and len(data.plan.folds) == 5


def test_defaults_follow_the_protocol_and_the_kind_of_method() -> None:
    assert recipe("-p", "none").train.steps == 30000  # IEMOCAP: SUPERB's
    assert recipe("-p", "lora").train.steps == 2000
    ravdess = recipe("-p", "lora", "--corpus", "ravdess")
    assert ravdess.train.steps is None and ravdess.train.head_lr == 2e-3
    assert recipe("-p", "lora", "-o", "train.lr=0.1").train.lr == 0.1
    assert recipe("--seed", "0,2").seeds == [0, 2]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("upstreams", ["hubert", "whisper_base", "s3prl:NAME", "fbank", "demo"]),
        ("methods", ["lora", "partial", "full", "ws", "none"]),
        ("corpora", ["iemocap", "ravdess", "CC BY-NC-SA 4.0", "manifest"]),
        ("protocols", ["ravdess-6fold", "iemocap-superb-random-dev", "emodb-loso"]),
    ],
)
def test_lists(what: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--list", what) == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


def test_the_dry_run_shows_everything_and_trains_nothing(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo_run(demo_corpus, tmp_path, "--dry-run") == 0
    shown = capsys.readouterr().out
    for word in ("Folds of demo-5fold", "lora", "8,192", "17,671", "trainable", "on disk",
                 "optimizer: adamw"):  # fmt: skip
        assert word in shown, word
    assert demo_run(demo_corpus, tmp_path, "--dry-run", "-o", "cache.enabled=false") == 0
    shown = capsys.readouterr().out
    assert "nothing is kept (cache.enabled=false)" in shown and "on disk" not in shown
    assert not list(tmp_path.iterdir())


def test_the_dry_run_says_where_each_part_sits(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = "lora:r=2,targets=q+classifier+ba:blocks=last:1+ws+wg"
    assert demo_run(demo_corpus, tmp_path, "--dry-run", method=method) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    total = next(int(r[1].replace(",", "")) for r in rows if r[:1] == ["total"])
    for method, blocks, module, each, parameters in (
        ("lora", "0-1", "attention.q_proj", 2 * 2 * 64, 2 * 2 * 2 * 64),
        ("lora", "head", "classifier", 2 * (256 + 4), 2 * (256 + 4)),
        ("ba", "1", "output", 2 * 64 * 64 + 2 * 64, 2 * 64 * 64 + 2 * 64),
        ("ws", "head", "featurizer", 3, 3),
        ("wg", "0-1", "output", 64, 128),
    ):
        share = percent(parameters / total).split()
        assert [method, blocks, module, f"{each:,}", f"{parameters:,}", *share] in rows


# ---- wrong names ------------------------------------------------------------------------------

FP16 = (("-u", "demo", "-o", "train.precision=fp16"), "fp16 needs a GPU")


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (("-u", "hubrt"), "did you mean hubert"),
        (("-u", "demo", "-p", "lorra"), "did you mean lora"),
        (("-u", "demo", "-p", "lora:rank=3"), "unknown option of lora 'rank'"),
        (("-u", "demo", "-p", "lora:r=many"), "lora:r=many must be a whole number"),
        (("-u", "demo", "-p", "lora:targets=q+x"), "unknown target of lora 'x'"),
        (("-u", "demo", "-p", "partial:9"), "which has 2 blocks"),
        (("-u", "demo", "-p", "none+lora"), "'none' in 'none+lora'"),
        (("-u", "demo", "-p", "lora+lora"), "stands twice"),
        (("-u", "demo", "--protocol", "demo-5folds"), "did you mean demo-5fold"),
        (("-u", "demo", "--protocol", "ravdess-6fold"), "is for corpus ravdess"),
        (("-u", "demo", "--fold", "7"), "unknown fold of protocol demo-5fold '7'"),
        (("-u", "demo", "--seed", "x"), "--seed x must be whole numbers"),
        (("-u", "demo", "-o", "train.lrr=1"), "did you mean train.lr"),
        (("-u", "demo", "-d", "emotoin"), "did you mean emotion"),
        (("-u", "demo", "-c", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("-u", "demo", "-n", "../up"), "must be a plain name"),
        (("-u", "fbank", "-p", "full"), "no weights to fine-tune"),
        (("-u", "s3prl:mfcc", "-p", "partial:1"), "run as a whole"),
        (("-u", "hubert", "--upstream-path", "nowhere"), "nowhere is not a directory"),
        *([] if torch.cuda.is_available() else [FP16]),
    ],
)
def test_a_wrong_name_is_answered(
    argv: tuple[str, ...],
    answer: str,
    demo_corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = fails(capsys, "--corpus", "demo", "--data", demo_corpus, "--out", tmp_path / "o", *argv)
    assert answer in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_wrong_corpus_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean ravdess" in fails(capsys, "-u", "demo", "--corpus", "ravdes")
    assert "nowhere does not exist" in fails(
        capsys, "-u", "demo", "--corpus", "demo", "--data", "nowhere"
    )


# ---- broken input -----------------------------------------------------------------------------


@pytest.fixture
def broken(demo_corpus: Path, tmp_path: Path) -> Path:
    """A copy of the corpus to break."""
    return Path(shutil.copytree(demo_corpus, tmp_path / "corpus"))


def test_all_broken_clips_are_listed_before_training(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = sorted(broken.rglob("*.wav"))
    clips[0].write_bytes(b"no audio")
    soundfile.write(clips[1], np.zeros(0), 16000)
    soundfile.write(clips[2], np.ones(160) * 0.1, 16000)  # 10 ms
    soundfile.write(clips[3], np.full(16000, np.nan), 16000, subtype="FLOAT")
    clips[4].write_bytes(b"")
    assert demo_run(broken, tmp_path / "out") == 2
    error = capsys.readouterr().err
    for clip in clips[:5]:
        assert clip.name in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_missing_clip_is_named(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = sorted(broken.rglob("*.wav"))[7]
    gone.unlink()
    assert demo_run(broken, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "demo-5fold" in error and "59 instead of 60" in error and "allow_incomplete" in error
    assert demo_run(broken, tmp_path / "out", "-o", "corpus.allow_incomplete=true") == 0


def test_a_clip_too_short_for_the_encoder_is_named(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = sorted(broken.rglob("*.wav"))[3]
    soundfile.write(short, np.random.default_rng(0).normal(size=410) * 0.1, 16000)
    done = demo_run(broken, tmp_path / "out", "-u", "s3prl:mfcc", method="none")
    assert done == 2
    assert short.name in capsys.readouterr().err


def test_damaged_files_of_a_run_are_named(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo_run(demo_corpus, tmp_path) == 0
    fold = tmp_path / "r" / "fold1_seed0"
    capsys.readouterr()
    whole = (fold / "adapter.safetensors").read_bytes()
    (fold / "adapter.safetensors").write_bytes(whole[: len(whole) // 2])
    audio = next(demo_corpus.rglob("*.wav"))
    error = fails(capsys, "-m", "predict", "--run", tmp_path / "r", "--audio", audio)
    assert "adapter.safetensors is damaged" in error
    (fold / "fold.json").write_text("{")
    assert demo_run(demo_corpus, tmp_path) == 2
    assert "fold.json" in capsys.readouterr().err
    (fold / "fold.json").unlink()
    (fold / "stage1.pt").write_bytes(b"half")
    assert demo_run(demo_corpus, tmp_path) == 2
    assert "stage1.pt" in capsys.readouterr().err


def test_a_checkpoint_is_never_unpickled(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    fold = tmp_path / "out" / "r" / "fold1_seed0"
    fold.mkdir(parents=True)
    torch.save({"step": Evil()}, fold / "stage1.pt")
    content = (fold / "stage1.pt").read_bytes()
    for end in (b"", hashlib.sha256(content).digest() + SEAL):  # as it is, and sealed as ours are
        (fold / "stage1.pt").write_bytes(content + end)
        assert demo_run(demo_corpus, tmp_path / "out") == 2
        assert "stage1.pt" in capsys.readouterr().err and not (tmp_path / "touched").exists()


def test_evaluate_and_predict_say_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "needs --run" in fails(capsys, "-m", "evaluate")
    assert "does not exist" in fails(capsys, "-m", "evaluate", "--run", tmp_path / "none")
    assert "needs --audio" in fails(capsys, "-m", "predict", "--run", tmp_path)


# ---- local weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True])
def test_a_directory_saved_by_save_pretrained_is_adapted(
    large: bool, demo_corpus: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    layer_norm = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
    config = HubertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        conv_dim=(32,) * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        **(layer_norm if large else {}),
    )  # fmt: skip
    HubertModel(config).save_pretrained(tmp_path / "weights")
    assert demo_run(demo_corpus, tmp_path, "-u", "hubert", "--upstream-path",
                    tmp_path / "weights") == 0  # fmt: skip
    data = read(tmp_path / "r" / "result.json")
    assert data["upstream"]["loader"] == "transformers" and data["upstream"]["note"] is None
    from emopeft.downstream.runs.evaluate import evaluate

    assert evaluate(tmp_path / "r")[0]["difference"] < 1e-4


def test_a_directory_of_another_family_is_refused(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import WavLMConfig, WavLMModel

    config = WavLMConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=32, conv_dim=(16,) * 7,
                         num_conv_pos_embedding_groups=2)  # fmt: skip
    WavLMModel(config).save_pretrained(tmp_path / "weights")
    assert demo_run(demo_corpus, tmp_path / "o", "-u", "hubert", "--upstream-path",
                    tmp_path / "weights") == 2  # fmt: skip
    error = capsys.readouterr().err
    assert "wavlm" in error and "hubert" in error


# ---- real speech ------------------------------------------------------------------------------


@needs_shared
def test_a_real_encoder_on_real_speech(tmp_path: Path) -> None:
    """Moonshine's frozen probe on six speakers of EmoDB's four classes: far above chance."""
    assert SHARED is not None
    folds = {
        "name": "six-speakers", "version": 1, "corpus": "emodb", "task": "emotion",
        "description": "Trained on four speakers.", "source": "ours", "unit": "speaker",
        "classes": ["neutral", "happy", "sad", "angry"],
        "labels": {name: name for name in ("neutral", "happy", "sad", "angry")},
        "leave_out": ["12", "13", "14", "16"],
        "folds": [{"name": "1", "test": ["03"], "dev": ["08"]}],
    }  # fmt: skip
    (tmp_path / "six.json").write_text(json.dumps(folds))
    assert call("-u", "moonshine_tiny", "--upstream-path", SHARED / "models/moonshine-tiny-encoder",
                "-d", "emotion", "-p", "none", "--corpus", "emodb", "--data",
                SHARED / "data/emodb", "--protocol", tmp_path / "six.json",
                "--out", tmp_path, "-n", "r") == 0  # fmt: skip
    assert read(tmp_path / "r" / "result.json")["folds"][0]["metrics"]["test"]["uar"] > 0.5
