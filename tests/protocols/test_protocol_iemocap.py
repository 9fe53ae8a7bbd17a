"""The IEMOCAP protocols against SUPERB's files and s3prl's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from emopeft.downstream.corpora.base import CORPORA
from emopeft.errors import UserError
from tests.protocols.cases import (
    SHIPPED,
    SUPERB,
    iemocap_like,
    plan_of,
)
from tests.shared import SHARED

PUBLISHED = SHARED / "protocols/iemocap_s3prl/meta_data" if SHARED else Path()
needs_fold_files = pytest.mark.skipif(
    not (PUBLISHED / "Session1").is_dir(), reason="no published IEMOCAP fold files (EMOPEFT_SHARED)"
)


def published(session: int, side: str) -> list[dict]:
    path = PUBLISHED / f"Session{session}" / f"{side}_meta_data.json"
    return json.loads(path.read_text())["meta_data"]


@needs_fold_files
def test_superb_folds_equal_the_published_ones_and_torchs_random_split():
    plan = plan_of(SHIPPED[SUPERB], iemocap_like(SHIPPED[SUPERB]))
    classes = {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
    sizes = []
    for k, fold in enumerate(plan.folds, start=1):
        rows = published(k, "train")
        length = int(0.8 * len(rows))
        torch.manual_seed(0)
        parts = torch.utils.data.random_split(rows, [length, len(rows) - length])
        sets = {"train": parts[0], "dev": parts[1], "test": published(k, "test")}
        ours = {part: found for part, _, found in fold.parts()}
        for side, rows in sets.items():
            theirs = [(Path(row["path"]).stem, classes[row["label"]]) for row in rows]
            found = [(e.utterance.id, plan.target(e).index(1)) for e in ours[side]]
            assert found == theirs
        sizes.append(len(fold.tests["test"]))
    assert sizes == [1085, 1023, 1151, 1031, 1241]


S3PRL = """
import json, sys, types
class Resample:
    def __init__(self, *rates): pass
torchaudio, transforms = types.ModuleType("torchaudio"), types.ModuleType("torchaudio.transforms")
torchaudio.load, transforms.Resample = (lambda path: (None, 16000)), Resample
torchaudio.transforms = transforms
sys.modules.update({"torchaudio": torchaudio, "torchaudio.transforms": transforms})
from pathlib import Path
from s3prl.downstream.emotion.expert import DownstreamExpert
import contextlib, io
result = {}
for k in range(1, 6):
    config = {
        "datarc": {"root": ".", "meta_data": sys.argv[1], "test_fold": f"fold{k}",
                   "pre_load": False, "valid_ratio": 0.2},
        "modelrc": {"select": "UtteranceLevel", "projector_dim": 8,
                    "UtteranceLevel": {"pooling": "MeanPooling"}},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        expert = DownstreamExpert(4, config, ".")
    for side in ("train", "dev"):
        part = getattr(expert, side + "_dataset")
        rows = [part.dataset.meta_data[i] for i in part.indices]
        result[f"{k} {side}"] = [Path(row["path"]).stem for row in rows]
print(json.dumps(result))
"""


@needs_fold_files
def test_superb_dev_parts_equal_those_of_s3prls_own_code():
    """s3prl's emotion expert itself, with only torchaudio (it reads no audio here) stood in."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", S3PRL, str(PUBLISHED)],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    theirs = json.loads(run.stdout.splitlines()[-1])
    for fold in SHIPPED[SUPERB].folds:
        assert list(fold.stages[0].train or ()) == theirs[f"{fold.name} train"]
        assert list(fold.stages[0].dev) == theirs[f"{fold.name} dev"]


def test_iemocap_counts_of_superb():
    counts = Counter(SHIPPED[SUPERB].utterances.values())
    assert counts == {"neutral": 1708, "happy": 1636, "angry": 1103, "sad": 1084}
    assert SHIPPED[SUPERB].classes == ("neutral", "happy", "angry", "sad")
    assert dict(SHIPPED["iemocap-loso"].utterances) == dict(SHIPPED[SUPERB].utterances)
    devs = {f.name: f.stages[0].dev for f in SHIPPED["iemocap-loso"].folds}
    assert devs == {"1": ("5",), "2": ("5",), "3": ("5",), "4": ("5",), "5": ("4",)}  # PEFT-SER
    everything = SHIPPED["iemocap-loso-all"].counts
    assert sum(everything.values()) + 2 + 3 + 2507 == 10039  # disgusted, other, undecided


def iemocap_tree(root: Path) -> None:
    """The publisher's layout with every 4-class utterance, all one tiny file under many names."""
    import soundfile

    tiny = root / "tiny.wav"
    soundfile.write(tiny, torch.linspace(-0.1, 0.1, 800).numpy(), 16000, subtype="PCM_16")
    codes = {"neutral": "neu", "angry": "ang", "sad": "sad"}
    dialogs: dict[str, list[str]] = {}
    for number, (name, label) in enumerate(SHIPPED[SUPERB].utterances.items()):
        dialogs.setdefault(name.rsplit("_", 1)[0], []).append(name)
        code = codes.get(label, ("hap", "exc")[number % 2])
        line = f"[{number}.0 - {number}.5]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]\n"
        dialogs[name.rsplit("_", 1)[0]][-1] = f"{name} {line}"
    for dialog, rows in dialogs.items():
        session = root / f"Session{dialog[4]}"
        wavs = session / "sentences" / "wav" / dialog
        wavs.mkdir(parents=True)
        evaluation = session / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
        evaluation.parent.mkdir(parents=True, exist_ok=True)
        head = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        evaluation.write_text(head + "\n".join(row.split(" ", 1)[1] for row in reversed(rows)))
        for row in rows:
            os.link(tiny, wavs / f"{row.split(' ', 1)[0]}.wav")


def test_a_tree_in_iemocaps_layout_gives_the_published_folds(tmp_path):
    iemocap_tree(tmp_path)
    utterances = CORPORA["iemocap"].load(tmp_path)
    assert len(utterances) == 5531
    for name in (SUPERB, "iemocap-loso"):
        plan = plan_of(SHIPPED[name], utterances)
        plan.check_leaks()
        assert plan.hash == plan_of(SHIPPED[name], iemocap_like(SHIPPED[name])).hash
    plan = plan_of(SHIPPED[SUPERB], utterances)
    for fold, spec in zip(plan.folds, SHIPPED[SUPERB].folds, strict=True):
        dev = fold.stages[0].dev
        assert tuple(e.utterance.id for e in dev) == spec.stages[0].dev
        if (PUBLISHED / "Session1").is_dir():
            theirs = [Path(row["path"]).stem for row in published(int(fold.name), "test")]
            assert [e.utterance.id for e in fold.tests["test"]] == theirs
    (next((tmp_path / "Session3/sentences/wav").glob("*/*.wav"))).unlink()
    with pytest.raises(UserError):
        plan_of(SHIPPED[SUPERB], CORPORA["iemocap"].load(tmp_path))
