"""docs/methods.md: the example is a method, names and numbers hold."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emopeft import peft_modules
from emopeft.downstream.data import recipe as recipes
from emopeft.peft_modules.base import METHODS, canonical, parse
from tests.peft_modules.cases import FAMILIES, FIFTEEN
from tests.peft_modules.test_battery import ALIKE, failures
from tests.peft_modules.test_counts import counts
from tests.shared import ROOT

TEXT = (ROOT / "docs" / "methods.md").read_text()
TABLE = TEXT.partition("| method | presets |")[2].partition("## Definitions")[0]


@pytest.fixture
def added(tmp_path: Path) -> Iterator[str]:
    """The page's example as a file on the package's path, as if it lay in peft_modules/."""
    code = re.findall(r"```python\n(.*?)```", TEXT, re.S)[-1]
    name = re.findall(r'    name = "(\w+)"', code)[0]
    assert f"`peft_modules/{name}.py`" in TEXT and len(code.splitlines()) < 60
    (tmp_path / f"{name}.py").write_text(code)
    peft_modules.__path__.append(str(tmp_path))
    importlib.invalidate_caches()
    METHODS._discovered = False  # as in a new process
    yield name
    peft_modules.__path__.remove(str(tmp_path))
    METHODS._items.pop(name, None)
    sys.modules.pop(f"emopeft.peft_modules.{name}", None)


def test_the_example_passes_the_battery(added: str, tmp_path: Path) -> None:
    assert added in METHODS
    assert canonical(parse(f"wg+{added}+ba")) == f"ba+{added}+wg"
    wanted = [added, f"{added}:blocks=last:1", f"lora+ba+{added}+ws+wg"]
    unlike = [family for family in FAMILIES if family not in ALIKE]
    found = failures(itertools.product(unlike, wanted), tmp_path)
    assert not found, "\n".join(found)
    assert counts("base", added)["method"] == 2 * 768 * 12


def test_every_method_of_ours_is_in_the_table() -> None:
    ours = {n for n, cls in METHODS.items() if not cls.__module__.endswith("library")}
    named = {parse(spec)[0].name for row in TABLE.splitlines() if row.startswith("| `")
             for spec in re.findall(r"`([^`]+)`", row.split("|")[1])}  # fmt: skip
    assert named == ours
    library = TEXT.partition("## Methods of the installed peft")[2].partition("## Where")[0]
    for name in re.findall(r"`(\w+)`", library):
        assert name in METHODS or name in {"ln_tuning", "targets", "blocks", "tinit", "tfinal"}


def test_the_tables_presets_and_counts() -> None:
    for row in TABLE.splitlines():
        cells = [c.strip() for c in row.strip("|").split("|")]
        specs = re.findall(r"`([^`]+)`", cells[0])
        if not specs or row.startswith("|---"):
            continue
        method = parse(specs[0])[0]
        if "classifier" in specs[0]:
            shown = int(re.findall(r"\((.*) in the head\)", cells[3])[0].replace(",", ""))
            assert counts("base", specs[0])["method"] == shown == 8 * (256 + 4)
            continue
        if cells[1] != "":
            assert set(re.findall(r"`([^`]+)`", cells[1])) == set(method.presets)
        else:
            assert not method.presets
        assert cells[4].startswith("yes") == method.identity, specs
        if method.name == "full":
            for spec, shown in zip(specs, cells[3].split(", "), strict=True):
                assert f"{counts('base', spec)['method'] / 1e6:.1f} M" == shown
        else:
            assert counts("base", specs[0])["method"] == int(cells[3].replace(",", "")), specs


GROUPS = (("emotion", 4),)


def test_only_ws_switches_the_weighted_sum_on() -> None:
    from emopeft.downstream.models.build import head_arguments
    from tests.peft_modules.cases import base

    upstream = base("hubert_base_like")[0]
    for name, keys in itertools.product(FIFTEEN, ("last", "blocks", "weighted_sum")):
        found = head_arguments(recipes.HeadKeys(layers=keys), upstream, name, GROUPS)["layers"]
        weighted = "weighted_sum" if keys == "last" and "ws" in name.split("+") else keys
        assert found == weighted, (name, keys)
    keys = recipes.HeadKeys(layers="weighted_sum")
    assert head_arguments(keys, upstream, "ws:blocks", GROUPS)["layers"] == "blocks"


def test_the_sizes_of_the_heads() -> None:
    from emopeft.downstream.heads.base import HEADS
    from emopeft.downstream.heads.making import make_head

    text = (ROOT / "docs" / "methods.md").read_text().partition("## Heads")[2].partition("##")[0]
    rows = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("| `")]
    sizes = {row[0].strip(" `"): int(row[-1].replace(",", "")) for row in rows[1:]}
    assert set(sizes) == set(HEADS)
    for name, size in sizes.items():
        head = make_head(name, width=768, states=13, outputs=4, layers="last")
        assert sum(p.numel() for p in head.parameters()) == size, name
        assert head.pooled == ("time means" in next(r for r in rows if name in r[0])[3])
