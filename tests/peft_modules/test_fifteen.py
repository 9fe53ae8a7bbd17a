"""The 15 sums of LoRA, BA, WS and WG: one run each on the demo's clips, one leaderboard."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from emopeft.leaderboard.__main__ import main as leaderboard
from tests.calls import call
from tests.peft_modules.cases import FIFTEEN
from tests.runs.rated import TWO_FOLDS, manifest, protocol

# On the demo upstream, width 64 and two blocks, by hand.
SIZES = {
    "lora": 2 * 4 * 2 * 8 * 64,
    "ba": 2 * (64 * 64 + 64 + 64 * 64 + 64),
    "ws": 3,
    "wg": 2 * 64,
}
HEAD = 64 * 256 + 256 + 256 * 4 + 4


def test_one_leaderboard(demo_corpus: Path, tmp_path: Path) -> None:
    assert len(FIFTEEN) == len(set(FIFTEEN)) == 15
    data = manifest(
        demo_corpus, tmp_path / "clips.csv", every=5
    )  # fewer clips and folds, to be quick
    folds = protocol(tmp_path / "two.json", "two-folds", "emotion", TWO_FOLDS)
    for method in FIFTEEN:
        status = call(
            "-u", "demo", "-d", "emotion", "-p", method, "--corpus", "manifest", "--data", data,
            "--protocol", folds, "--out", tmp_path / "runs", "-o", "train.steps=2",
            "-o", "train.eval_every=2", "-o", "head.layers=last",
        )  # fmt: skip
        assert status == 0, method
    assert leaderboard([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    [table] = board["tables"]
    found = {row["method"]["spec"]: row["parameters"] for row in table["rows"]}
    assert len(found) == len(table["rows"]) == 15
    for spec, counted in found.items():
        expected = sum(SIZES[name] for name in spec.split("+"))
        assert counted["method"] == expected and counted["trainable"] == expected + HEAD, spec
    assert {frozenset(spec.split("+")) for spec in found} == {
        frozenset(chosen) for n in range(1, 5) for chosen in itertools.combinations(SIZES, n)
    }
