"""Which methods become ONNX graphs on which families: the table of docs/onnx.md.

``python -m tests.sharing.onnx_table`` (some minutes) exports the small models of tests/tiny.py, two
steps trained, and prints a row per method: the largest difference from torch, relative to the
clip's largest output (or 1), and "m" where the adapters were merged into the weights first.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from emopeft.downstream.data.keys import ClipKeys
from emopeft.downstream.heads.making import make_head
from emopeft.downstream.models.build import assemble
from emopeft.downstream.models.merged import merged_of
from emopeft.downstream.models.onnx_files import OnnxModel
from emopeft.downstream.sharing.onnx_export import checked
from emopeft.downstream.sharing.onnx_graph import write_graph
from emopeft.downstream.tasks.emotion import EmotionTask
from emopeft.errors import UserError
from emopeft.peft_modules.apply import adapt
from emopeft.peft_modules.base import METHODS
from emopeft.upstream.base import Upstream
from emopeft.upstream.catalogue import load
from tests.peft_modules.cases import FAMILIES, SMALL, batch_of, built
from tests.peft_modules.test_battery import train

MAIN = ("none", "ws", "lora", "ba", "wg", "adapter", "prompt", "prefix", "bitfit", "layernorm",
        "cnn_adapter", "partial:1", "full", "lora+ba+ws", "lora+prompt")  # fmt: skip
SHOWN = ("hubert_base_like", "hubert_large_like", "wavlm", "data2vec", "whisper", "moonshine",
         "s3prl_hubert", "fbank", "egemaps")  # fmt: skip
TASK = EmotionTask(["calm", "angry", "sad", "happy"], {})


def cell(make: Callable[[], Upstream], spec: str) -> str:
    """What stands in the table."""
    try:
        upstream = make()
        if not upstream.num_blocks:  # a baseline: nothing in it trains
            adaptation = adapt(upstream, spec)
            options = {"width": upstream.width, "states": 1, "outputs": len(TASK.classes)}
            model = assemble(adaptation, make_head("superb", **options), dropout=False).eval()
        else:
            _, model = built(upstream, spec, prove=False)
            train(model, batch_of(model))
        merged, _ = merged_of(lambda: copy.deepcopy(model))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_graph(path, merged or copy.deepcopy(model), TASK, ClipKeys())
            found = checked(model, OnnxModel.open(path, ClipKeys()), TASK, ClipKeys())
    except UserError as error:
        print(f"{spec}: {error}", file=sys.stderr)
        return "no" if "ONNX" in str(error) else "–"
    return f"{found['largest']:.0e}" + (" m" if merged is not None else "")


def main(families: Sequence[str], specs: Sequence[str]) -> None:
    """Print the table."""
    print("| method | " + " | ".join(families) + " |")
    print("|---" * (len(families) + 1) + "|")
    for spec in specs:
        makes = [FAMILIES.get(name, lambda name=name: load(name)) for name in families]  # type: ignore[misc]
        print(f"| `{spec}` | " + " | ".join(cell(make, spec) for make in makes) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["all"]:
        specs = [SMALL.get(name, name) for name in METHODS]
        main(["hubert_base_like"], [spec for spec in specs if spec.partition(":")[0] not in MAIN])
    else:
        main(sys.argv[1].split(",") if sys.argv[1:] else SHOWN, MAIN)
