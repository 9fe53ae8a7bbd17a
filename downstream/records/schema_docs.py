"""``python -m downstream.records.schema_docs``: the JSON Schemas of all files, for docs/schema.

For those who send results, protocols or corpora from elsewhere: each model here is what the file is
checked against when it is read. A model may say more than its JSON Schema can (sums, names that
must fit together).
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pydantic

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schema"  # of a checkout
MODELS = {  # file name -> module and model of what it holds
    "record": ("emopeft.downstream.records.record_schema", "RecordFacts"),
    "fold": ("emopeft.downstream.records.schema", "FoldFacts"),
    "conditions": ("emopeft.downstream.records.conditions", "ConditionsFacts"),
    "adapter": ("emopeft.downstream.models.adapter_config", "AdapterConfig"),
    "manifest": ("emopeft.downstream.corpora.manifest_row", "ManifestRow"),  # one row of it
    "protocol": ("emopeft.downstream.protocols.schema", "ProtocolFile"),
}


def model_of(name: str) -> type[pydantic.BaseModel]:
    """The model of a file."""
    module, model = MODELS[name]
    return getattr(importlib.import_module(module), model)


def text_of(name: str) -> str:
    """The JSON Schema of a file, as docs/schema holds it."""
    schema = model_of(name).model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write all of them into the folder given, or docs/schema of the checkout."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in MODELS:
        path = folder / f"{name}.schema.json"
        path.write_text(text_of(name), encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
