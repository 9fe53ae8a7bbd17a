"""The rooms stand in the order of the data, and imports go one way: to an earlier room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared import ROOT

# CONTRIBUTING.md draws them in this order.
ROOMS = (
    "emopeft",
    "upstream",
    "peft_modules",
    "downstream.corpora",
    "downstream.views",
    "downstream.protocols",
    "downstream.protocols.makers",
    "downstream.measures",
    "downstream.tasks",
    "downstream.heads",
    "downstream.data",
    "downstream.feature_cache",
    "downstream.models",
    "downstream.training",
    "downstream.records",
    "downstream.runs",
    "downstream.reports",
    "downstream.sharing",
    "leaderboard",
    "emopeft.commands",
)
COMMANDS = "emopeft.commands"
FOLDERS = ("emopeft", "upstream", "peft_modules", "downstream", "leaderboard")


def module_of(path: Path, root: Path) -> str:
    """``downstream/data/plan.py``: emopeft.downstream.data.plan."""
    parts = path.relative_to(root).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "emopeft" else ("emopeft", *parts))


def room_of(module: str) -> str | None:
    """The room that a module of ours lies in; None for the empty package ``downstream``."""
    inside = module.removeprefix("emopeft.")
    rooms = [r for r in ROOMS if f"{inside}.".startswith(f"{r.removeprefix('emopeft.')}.")]
    if rooms:
        return max(rooms, key=len)
    return None if inside in ("downstream", "recipes") else "emopeft"


def imports(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported, in functions too.

    ``from a.b import c`` is ``a.b.c``. What only type checkers see is left out: nothing runs it.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: write imports in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        else:
            yield from imports(node, module)


def is_program(node: ast.AST) -> bool:
    """``if __name__ == "__main__":``: a command, whatever file it stands in."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def arrows(root: Path) -> Iterator[tuple[str, str, str]]:
    """(room, room that it imports, where) of every import between our modules."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            module = module_of(path, root)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            programs = [node for node in tree.body if is_program(node)]
            tree.body = [node for node in tree.body if node not in programs]
            room = room_of(module)
            if path.name == "__main__.py" and room != COMMANDS:
                room = COMMANDS  # what `python -m ROOM` runs
            parts = [(room, tree), *((COMMANDS, node) for node in programs)]
            for source, part in parts:
                for line, name in imports(part, module):
                    if name.partition(".")[0] != "emopeft":
                        continue
                    target = room_of(name)
                    if source is not None and target is not None:
                        yield source, target, f"{path.relative_to(root)}:{line} imports {name}"


def upward(root: Path) -> list[str]:
    """Every import that goes to a later room."""
    return [
        where for source, target, where in arrows(root) if ROOMS.index(target) > ROOMS.index(source)
    ]


def test_imports_go_to_earlier_rooms_only() -> None:
    """So there is no cycle of rooms either: the order is one of all of them."""
    assert upward(ROOT) == []


def test_programs_call_the_door_and_nothing_else() -> None:
    """What ``python -m ROOM`` runs is the same code as the command ``emopeft``."""
    for path in ROOT.rglob("*/__main__.py"):
        if path.relative_to(ROOT).parts[0] in FOLDERS:
            names = [name for _, name in imports(ast.parse(path.read_text()), str(path))]
            assert all(n == "sys" or n.startswith("emopeft.commands.") for n in names), path


def test_every_folder_is_a_room() -> None:
    folders = {
        module_of(path, ROOT).removeprefix("emopeft.")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert folders - {"downstream"} == {r.removeprefix("emopeft.") for r in ROOMS}


def test_contributing_draws_them_in_this_order() -> None:
    drawing = (ROOT / "CONTRIBUTING.md").read_text().partition("```\n")[2].partition("```")[0]
    drawn = [line.split()[0].rstrip("/").replace("/", ".") for line in drawing.splitlines() if line]
    assert drawn == list(ROOMS)


@pytest.mark.parametrize(
    ("folder", "line", "found"),
    [
        ("downstream/corpora", "def f():\n    from emopeft.downstream.runs import run\n", True),
        ("upstream", "import emopeft.peft_modules.base\n", True),
        ("peft_modules", "from emopeft.commands.door import main\n", True),
        ("peft_modules", 'if __name__ == "__main__":\n    import emopeft.commands.door\n', False),
        ("peft_modules", "from emopeft import upstream\n", False),
        ("upstream", "from emopeft import peft_modules\n", True),
        ("downstream/data", "from emopeft.downstream.tasks.base import TASKS\n", False),
    ],
)
def test_the_walk_sees_an_arrow_up(folder: str, line: str, found: bool, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "new.py").write_text(line)
    assert bool(upward(tmp_path)) == found


@pytest.mark.parametrize(
    "module",
    [
        "emopeft.commands.door",
        "emopeft.commands.card",
        "emopeft.downstream.corpora.check",
        "emopeft.downstream.protocols.protocol",
        "emopeft.downstream.tasks.emotion",
        "emopeft.downstream.data.plan",
        "emopeft.downstream.data.recipe",
        "emopeft.downstream.records.record",
        "emopeft.leaderboard.gather",
    ],
)
def test_what_needs_no_torch_loads_none(module: str) -> None:
    code = f"import sys, {module}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
