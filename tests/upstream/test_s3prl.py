"""s3prl's collection: names without importing it, experts run as they are, no pickled code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emopeft.errors import UserError
from emopeft.guard import set_audio_backend
from emopeft.upstream.base import FROM_WAVEFORM, Upstream
from emopeft.upstream.catalogue import find, load
from emopeft.upstream.demo import fill
from emopeft.upstream.identity import same_base
from emopeft.upstream.s3prl_collection import CollectionUpstream
from emopeft.upstream.s3prl_eval import harmless
from emopeft.upstream.s3prl_names import contents_digest, s3prl_names

pytest.importorskip("s3prl")


def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(n, generator=generator) for n in (16000, 9000)]


SMALL = {
    "encoder_layers": 2,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "final_dim": 16,
    "conv_feature_layers": "[(16,10,5)] + [(16,3,2)] * 4 + [(16,2,2)] * 2",
    "conv_pos": 16,
    "conv_pos_groups": 2,
}


def checkpoint(family: str, file: Path) -> Path:
    """A small random checkpoint in s3prl's own converted format."""
    with set_audio_backend():
        if family == "hubert":
            from s3prl.upstream.hubert import hubert_model as h

            task, config = h.HubertPretrainingConfig(), h.HubertConfig(label_rate=50, **SMALL)
            model: Any = h.HubertModel(config, task, [["a", "b"]])
        else:
            from s3prl.upstream.wav2vec2 import wav2vec2_model as w

            task, config = w.AudioPretrainingConfig(), w.Wav2Vec2Config(**SMALL)
            model = w.Wav2Vec2Model(config)
    fill(model, seed=1)
    state = {
        "task_cfg": dataclasses.asdict(task),
        "model_cfg": dataclasses.asdict(config),
        "model_weight": model.state_dict(),
        "dictionaries_symbols": [["a", "b"]],
    }
    for config in (state["task_cfg"], state["model_cfg"]):
        for key, value in config.items():
            config[key] = getattr(value, "value", value)  # enumerations are pickled code
    torch.save(state, file)
    return file


def test_names_are_those_of_the_hub_file() -> None:
    names = s3prl_names()
    assert {"hubert", "wavlm_large", "tera", "apc", "pase_plus", "fbank", "vggish"} <= set(names)
    assert len(names) > 150 and not any(n.startswith("_") or n.endswith("_url") for n in names)
    with pytest.raises(UserError, match="did you mean hubert"):
        find("s3prl:hubrt")
    assert find("s3prl:tera").family == "s3prl"


@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
def test_the_experts_own_states(family: str, tmp_path: Path) -> None:
    file = checkpoint(family, tmp_path / "model.pt")
    upstream = load(f"s3prl:{family}_custom", file)
    assert (upstream.width, upstream.num_blocks, upstream.stride) == (32, 2, 320)
    assert upstream.loader == "s3prl" and not upstream.has_blocks
    with set_audio_backend():
        hubconf: Any = __import__(f"s3prl.upstream.{family}.hubconf", fromlist=["x"])
        expert = getattr(hubconf, f"{family}_custom")(str(file)).eval()
    for wav in clips():
        with torch.no_grad():
            theirs = expert([wav])["hidden_states"]
        ours = upstream([wav])
        assert len(ours.layers) == len(theirs) == 3
        for a, b in zip(ours.layers, theirs, strict=True):
            # s3prl's own call bypasses the projections (trap 1): the same to 5e-7.
            assert a.shape[1] == upstream.frames_of(len(wav)) <= b.shape[1]
            assert float((a - b[:, : a.shape[1]]).abs().max()) <= 5e-6


@pytest.mark.parametrize("family", ["hubert", "wav2vec2"])
def test_projections_are_live(family: str, tmp_path: Path) -> None:
    upstream = load(f"s3prl:{family}_local", checkpoint(family, tmp_path / "model.pt"))
    called: list[str] = []
    for name, module in upstream.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj")):
            module.register_forward_hook(lambda m, x, y, name=name: called.append(name))
    upstream(clips()[:1])
    assert len(called) == len(set(called)) == 8


@pytest.mark.parametrize("name", ["fbank", "mfcc", "spectrogram", "mel", "linear", "hubert"])
def test_contract(name: str, tmp_path: Path) -> None:
    if name == "hubert":
        upstream: Upstream = load(
            "s3prl:hubert_custom", checkpoint("hubert", tmp_path / "model.pt")
        )
    else:
        upstream = load(f"s3prl:{name}")
    together = upstream(clips())
    assert len(together.layers) == upstream.num_blocks + 1
    for i, wav in enumerate(clips()):
        alone = upstream([wav])
        n = int(alone.lengths[0])
        assert n == int(together.lengths[i]) == upstream.frames_of(len(wav))
        for a, b in zip(alone.layers, together.layers, strict=True):
            assert torch.equal(a[0], b[i, :n])
    kept, none = upstream.prefix(FROM_WAVEFORM, clips())
    assert none.layers == []
    assert torch.equal(upstream.forward_from(FROM_WAVEFORM, kept).means(), together.means())
    kept, states = upstream.prefix(upstream.num_blocks, clips())
    assert kept == [] and torch.equal(states.means(), together.means())
    assert upstream.first_change() == upstream.num_blocks
    shortest = upstream([torch.randn(upstream.min_samples)])
    assert bool(shortest.layers[-1].isfinite().all())
    assert 1 <= int(shortest.lengths[0]) <= 2  # a deviation over time needs two
    assert upstream.min_samples <= 1600
    if list(upstream.parameters()):
        upstream.requires_grad_(True)
        assert upstream.first_change() == FROM_WAVEFORM


def refusal(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_refusals(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    assert "needs its checkpoint" in refusal("s3prl:hubert_custom")
    assert "use s3prl:hubert_custom" in refusal("s3prl:hubert", tmp_path)
    assert "not a directory" in refusal("s3prl:hubert_custom", file)
    file.write_bytes(b"nonsense")
    assert str(file) in refusal("s3prl:hubert_custom", file)
    torch.save({"a": 1}, file)
    assert str(file) in refusal("s3prl:hubert_custom", file)
    checkpoint("wav2vec2", file)
    assert str(file) in refusal("s3prl:hubert_custom", file)
    assert "sox_effects" in refusal("s3prl:mos_apc")


def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from s3prl.upstream.hubert import hubconf

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("name resolution")

    monkeypatch.setattr(hubconf, "_urls_to_filepaths", no_network)
    text = refusal("s3prl:hubert")
    assert "cannot be downloaded" in text and "use s3prl:hubert_custom with --upstream-path" in text


@pytest.mark.parametrize("name", ["hubert_custom", "tera_local"])  # one asks for unpickling
def test_pickled_code_is_never_run(name: str, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was_run",))

    torch.save({"Config": Code(), "task_cfg": Code()}, tmp_path / "model.pt")
    text = refusal(f"s3prl:{name}", tmp_path / "model.pt")
    assert "pickled code" in text and "model.pt" in text
    assert not (tmp_path / "was_run").exists()


def test_a_bag_of_values_is_let_through(tmp_path: Path) -> None:
    torch.save({"config": argparse.Namespace(a=1)}, tmp_path / "model.pt")
    text = refusal("s3prl:hubert_custom", tmp_path / "model.pt")
    assert "pickled code" not in text and "required key" in text


# ---- identity, devices, code -----------------------------------------------------------------


def configuration(name: str, place: Path) -> Path:
    """A copy of one of s3prl's own configurations."""
    import s3prl

    assert s3prl.__file__ is not None
    source = Path(s3prl.__file__).parent / "upstream" / "baseline" / name
    place.write_bytes(source.read_bytes())
    return place


def test_two_configurations_are_two_upstreams(tmp_path: Path) -> None:
    """REVIEW A3: nothing in weights or options told them apart, and the cache answered for both."""
    with_norm = load("s3prl:baseline_local", configuration("fbank.yaml", tmp_path / "a.yaml"))
    without = load("s3prl:baseline_local", configuration("fbank_no_cmvn.yaml", tmp_path / "b.yaml"))
    means = with_norm(clips()).means() - without(clips()).means()
    assert float(means.abs().max()) > 1
    assert with_norm.options != without.options
    assert same_base({"options": without.options}, with_norm) is not None
    # The same file under another name is the same upstream.
    moved = load("s3prl:baseline_local", configuration("fbank.yaml", tmp_path / "c.yaml"))
    assert (moved.options, moved.weights) == (with_norm.options, with_norm.weights)
    assert len(moved.options["file"]) == 64
    assert moved.options["version"] == load("s3prl:fbank").options["version"] != ""


def test_a_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    """REVIEW A3, for entries that read a folder."""
    folder = tmp_path / "a"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "x").write_text("1")
    (folder / "y").write_text("2")
    before = contents_digest(folder)
    folder.rename(tmp_path / "b")
    assert contents_digest(tmp_path / "b") == before
    (tmp_path / "b" / "sub" / "x").write_text("3")
    changed = contents_digest(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x").rename(tmp_path / "b" / "x")
    assert len({before, changed, contents_digest(tmp_path / "b")}) == 3
    os.mkfifo(tmp_path / "b" / "pipe")
    with pytest.raises(UserError, match="pipe"):
        contents_digest(tmp_path / "b")


def test_a_checkpoints_text_is_not_run(tmp_path: Path) -> None:
    """A layer list that s3prl hands to ``eval``: no pickled code, and code all the same."""
    file = checkpoint("hubert", tmp_path / "model.pt")
    state = torch.load(file, weights_only=True)
    run = f"__import__('pathlib').Path({str(tmp_path / 'was_run')!r}).touch()"
    state["model_cfg"]["conv_feature_layers"] = f"[{run}] and {SMALL['conv_feature_layers']}"
    torch.save(state, file)
    text = refusal("s3prl:hubert_custom", file)
    assert "code where numbers belong" in text and "model.pt" in text
    assert not (tmp_path / "was_run").exists()


def test_a_configurations_text_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    run = f"fbank if open({str(tmp_path / 'was_run')!r}, 'w') else fbank"
    file.write_text(f"kaldi: {{feat_type: {json.dumps(run)}, {json.dumps(run)}: {{}}}}\n")
    assert "code where numbers belong" in refusal("s3prl:baseline_local", file)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("source", "harmless_"),
    [
        ("[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2", True),
        ("self.model.encoder.layers[0]", True),
        ("{'a': -1.5}", True),
        ("torchaudio.compliance.kaldi.fbank", True),
        ("torchaudio.compliance.kaldi.torch.load", False),
        ("print", False),
        ("self.__class__", False),
        ("[x for x in (1, 2)]", False),
        ("f()", False),
        ("[1] * 10**9", False),
        ("[1] * 100 * 100", False),
        ("[1] * (100 * 100)", False),
        ("(" * 5000 + ")" * 5000, False),
        ("1" * 20000, False),
    ],
)
def test_what_may_be_evaluated(source: str, harmless_: bool) -> None:
    assert harmless(source) is harmless_


class Stray(torch.nn.Module):
    """An expert with nothing but plain tensors, which torch does not move."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(2)
        self.more = [torch.ones(2), torch.ones(2)]
        self.byname = {"a": torch.ones(2)}

    def forward(self, wavs: list[Tensor]) -> dict[str, list[Tensor]]:
        frames = wavs[0][: len(wavs[0]) // 160 * 160].view(-1, 160).mean(1)
        state = frames[:, None] * self.scale * self.more[1] * self.byname["a"]
        return {"hidden_states": [state[None]]}


def test_experts_that_keep_plain_tensors_move_whole() -> None:
    """Section B: without parameters the expert was nowhere, its tensors stayed on the CPU."""
    upstream = CollectionUpstream("stray", Stray()).seal()
    expected = upstream(clips()).layers[0].shape
    upstream.to("meta")
    assert upstream.device == torch.device("meta")
    places = [upstream.expert.scale, *upstream.expert.more, *upstream.expert.byname.values()]
    assert {x.device.type for x in places} == {"meta"}
    states = upstream(clips())
    assert (states.layers[0].shape, states.layers[0].device.type) == (expected, "meta")


@pytest.mark.parametrize("name", ["fbank", "mfcc", "hubert"])
def test_on_every_device(name: str, device: torch.device, tmp_path: Path) -> None:
    if name == "hubert":
        upstream = load("s3prl:hubert_custom", checkpoint("hubert", tmp_path / "model.pt"))
    else:
        upstream = load(f"s3prl:{name}")
    expected = upstream(clips())
    upstream.to(device)
    moved = upstream(clips())
    assert upstream.device.type == device.type == moved.lengths.device.type
    assert upstream.prefix(FROM_WAVEFORM, clips())[1].lengths.device.type == device.type
    for a, b in zip(moved.layers, expected.layers, strict=True):
        assert a.device.type == device.type
        assert float((a.cpu() - b).abs().max() / b.abs().max()) <= 5e-4
