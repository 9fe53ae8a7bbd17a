"""docs/findings.md: every test that it names exists, and every finding has one."""

from __future__ import annotations

import re

from tests.shared import ROOT

TEXT = (ROOT / "docs" / "findings.md").read_text()


def test_every_test_it_names_exists() -> None:
    names = re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)
    assert len(names) > 100
    for file, name in names:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), (file, name)


def test_every_finding_has_a_test() -> None:
    rows = {m[1]: m[2] for m in re.finditer(r"^\| ([ACD]\d+) \|[^|]*\|([^|]*)\|", TEXT, re.M)}
    wanted = [f"A{n}" for n in range(1, 22)] + [f"C{n}" for n in range(1, 10)]
    assert list(rows) == [*wanted, *(f"D{n}" for n in range(1, 8))]
    assert all("::test_" in row for row in rows.values())
