"""The wheel: one package, whole, and it runs from an empty folder."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.shared import ROOT

FOLDERS = ("emopeft", "upstream", "peft_modules", "downstream", "recipes", "leaderboard")
BUILD = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip would put into site-packages."""
    place = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(place)
    return place


def test_one_package_and_nothing_else_at_the_top(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    (metadata,) = tops - {"emopeft"}
    assert metadata.startswith("emopeft-") and metadata.endswith(".dist-info")


def test_every_file_of_the_rooms_is_in_it(wheel: Path) -> None:
    inside = {
        name.removeprefix("emopeft/")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("emopeft/")
    }
    suffixes = (".py", ".json", ".yaml", ".md", ".typed", ".j2")
    on_disk = {
        path.relative_to(ROOT).as_posix().removeprefix("emopeft/")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes
    }
    assert inside == on_disk
    assert "py.typed" in inside and "downstream/protocols/ravdess-6fold.json" in inside
    assert "recipes/default/frozen.yaml" in inside and "recipes/superb/experiments.yaml" in inside
    assert not any("test" in name.split("/") or "tests" in name.split("/") for name in inside)


def test_setup_names_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = setup["options"]["packages"].split()
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert {p if p.startswith("emopeft") else f"emopeft.{p}" for p in on_disk} == set(packages)
    assert len(packages) == len(set(packages))


def run(installed: Path, empty: Path, *argv: str) -> str:
    """``python -m emopeft ARGV`` of the unpacked wheel, from an empty folder."""
    environment = os.environ | {"PYTHONPATH": str(installed), "EMOPEFT_CACHE": str(empty / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", *argv], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    assert "demo" in run(installed, tmp_path, "emopeft", "--help")
    assert "EMOPEFT_RAVDESS" in run(installed, tmp_path, "emopeft", "list", "corpora", "ravdess")
    assert "ravdess-6fold" in run(installed, tmp_path, "emopeft", "list", "protocols")
    assert "emopeft board" in run(installed, tmp_path, "emopeft.leaderboard", "--help")
    code = (
        "import emopeft.commands.door as d; from emopeft.downstream.data.recipe import shipped;"
        f"assert d.__file__.startswith({str(installed)!r}), d.__file__;"
        "assert shipped('default/peft.yaml').is_file()"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def test_the_demo_runs_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "emopeft", "demo", "-o", "train.epochs=1")
    assert "240 synthetic clips" in shown and "written: leaderboard_out" in shown
    board = (tmp_path / "leaderboard_out" / "leaderboard.md").read_text()
    assert "demo-5fold" in board and "lora" in board
