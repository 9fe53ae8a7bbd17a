"""The published JSON Schemas are those that files are checked against."""

import json

import pytest

from emopeft.downstream.records.schema_docs import FOLDER, MODELS, main, text_of
from tests.records.cases import example_facts, make_record


@pytest.mark.parametrize("name", MODELS)
def test_what_is_published_is_what_is_checked(name):
    path = FOLDER / f"{name}.schema.json"
    assert path.read_text(encoding="utf-8") == text_of(name), (
        "run python -m downstream.records.schema_docs"
    )


def test_no_other_file_is_published():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.schema.json" for name in MODELS}


def test_the_command(tmp_path):
    assert main([str(tmp_path)]) == 0
    assert len(list(tmp_path.iterdir())) == len(MODELS)


def keys_of(schema, data, definitions):
    """Every key of data is one that the schema knows (where it names its keys)."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if isinstance(data, dict) and "properties" in schema:
        assert set(schema["required"]) <= set(data) <= set(schema["properties"])
        for key, value in data.items():
            keys_of(schema["properties"][key], value, definitions)


def test_they_say_what_is_written(tmp_path):
    for name, data in (("fold", example_facts()), ("record", make_record(tmp_path))):
        schema = json.loads(text_of(name))
        keys_of(schema, data, schema["$defs"])
        assert schema["additionalProperties"] is False
