"""Directories from elsewhere with one leaf replaced or one bit flipped: run, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emopeft.errors import UserError
from emopeft.upstream.catalogue import load
from tests.tiny import plain

WAV = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))

JSONS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0, -1, 1, 2**31, 2**63, 1e300, "", "gelu", "layer", "a/b", "\ud800", "\0"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)


# The name to load each of these tiny models by.
FAMILIES = {
    "hubert_base_like": "hubert",
    "wavlm": "wavlm",
    "data2vec": "data2vec",
    "whisper": "whisper_tiny",
    "moonshine": "moonshine_tiny",
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of a good tiny directory of each family."""
    found = {}
    for name in FAMILIES:
        folder = tmp_path_factory.mktemp(name)
        plain(name).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
        found[name] = {f.name: f.read_bytes() for f in folder.iterdir()}
    return found


def tried(name: str, folder: Path, files: dict[str, bytes]) -> None:
    """Load what stands in these files: it runs, or one sentence says why not."""
    for file, content in files.items():
        (folder / file).write_bytes(content)
    try:
        upstream = load(FAMILIES[name], folder)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
    else:
        upstream([WAV])


FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FEW
@given(name=st.sampled_from(sorted(FAMILIES)), data=st.data(), value=JSONS)
def test_any_leaf_of_the_configuration(
    name: str,
    data: st.DataObject,
    value: Any,
    good: dict[str, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    """REVIEW D5, D6: one leaf of config.json replaced."""
    config = json.loads(good[name]["config.json"])
    config[data.draw(st.sampled_from(sorted(config)))] = value
    tried(name, tmp_path, good[name] | {"config.json": json.dumps(config).encode()})


@FEW
@given(name=st.sampled_from(sorted(FAMILIES)), data=st.data())
def test_any_byte_of_any_file(
    name: str, data: st.DataObject, good: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """REVIEW D5, D6: one bit of a file flipped; half of the time in the header of the weights."""
    file = data.draw(st.sampled_from(sorted(good[name])))
    content = bytearray(good[name][file])
    last = data.draw(st.sampled_from([min(400, len(content)), len(content)]))
    content[data.draw(st.integers(0, last - 1))] ^= 1 << data.draw(st.integers(0, 7))
    tried(name, tmp_path, good[name] | {file: bytes(content)})
