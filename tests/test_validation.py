"""One readable sentence for whatever is wrong with the data of a file."""

from __future__ import annotations

import math
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emopeft.errors import UserError
from emopeft.validation import Strict, validated


class Inner(Strict):
    rate: float = pydantic.Field(gt=0)
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()


class Outer(Strict):
    version: int
    inner: Inner
    parts: dict[str, Inner] = {}
    other: Any = None

    @pydantic.model_validator(mode="after")
    def agree(self) -> Outer:
        if self.version == 13:
            raise ValueError("13 is unlucky")
        return self


GOOD: dict[str, Any] = {
    "version": 1,
    "inner": {"rate": 1, "kind": "b", "names": ["x", "y"]},
    "parts": {"p": {"rate": 0.5}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    *way, last = path.split(".")
    data = {**GOOD, "inner": {**GOOD["inner"]}, "parts": {"p": {**GOOD["parts"]["p"]}}}
    place = data
    for key in way:
        place = place[key]
    place[last] = value
    return data


def test_good_data_gives_the_model_and_cannot_be_changed() -> None:
    found = validated("x.json", Outer, GOOD)
    assert found.inner.names == ("x", "y") and found.inner.rate == 1.0
    with pytest.raises(pydantic.ValidationError):
        found.version = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", "1", "key 'version' must be a valid integer, not '1'"),
        ("version", True, "key 'version' must be a valid integer, not True"),
        ("version", 13, "13 is unlucky"),
        ("inner.rate", -1, "key 'inner.rate' must be greater than 0, not -1"),
        ("inner.rate", math.nan, "key 'inner.rate' must be a finite number, not nan"),
        ("other", [1, {"x": math.inf}], "key 'other.1.x' must be a finite number, not inf"),
        ("inner.kind", "c", "key 'inner.kind' must be 'a' or 'b', not 'c'"),
        ("inner.names", [1], "key 'inner.names.0' must be a valid string, not 1"),
        ("inner.rat", 1, "unknown key 'inner.rat' (did you mean rate?)"),
        ("inner", None, "key 'inner' must be an object, not None"),
        ("parts.p", {}, "key 'parts.p.rate' is missing"),
        ("parts.p.\x1b[2J", 1, "unknown key 'parts.p.\\x1b[2J'"),
        ("other", {1, 2}, "holds what JSON cannot say"),
    ],
)
def test_what_is_wrong_is_one_sentence(path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        validated("x.json", Outer, changed(path, value), way_out="write it again")
    text = str(caught.value)
    assert text.startswith(f"x.json: {message}") and text.endswith("; write it again")
    assert text.isprintable()


def test_nesting_without_end_is_one_sentence() -> None:
    """REVIEW D6: a traceback."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UserError, match="x.json"):
        validated("x.json", Outer, changed("other", deep))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UserError, match="x.json"):
        validated("x.json", Outer, changed("other", loop))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@given(path=st.sampled_from(["version", "inner", "inner.rate", "parts", "parts.p.kind", "other"]),
       value=ANYTHING)  # fmt: skip
def test_any_leaf_gives_the_model_or_one_sentence(path: str, value: Any) -> None:
    try:
        found = validated("x.json", Outer, changed(path, value))
    except UserError as error:
        assert str(error).startswith("x.json: ") and str(error).isprintable()
    else:
        assert isinstance(found, Outer)
