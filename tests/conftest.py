"""The demo corpus, once per session, a cache that no test shares with the user, the devices."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import emopeft.upstream  # noqa: F401  (its guard must run before any test imports transformers)
from emopeft.downstream.corpora import demo_domains as two_domains
from emopeft.downstream.corpora.demo import synthesise


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 synthetic clips."""
    root = tmp_path_factory.mktemp("demo") / "corpus"
    synthesise(root)
    return root


@pytest.fixture(scope="session")
def demo_domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 "acted" and 96 "natural" synthetic clips, three sessions each."""
    root = tmp_path_factory.mktemp("demo") / "domains"
    two_domains.synthesise(root)
    return root


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Frozen parts of tests are kept in a folder of the test session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOPEFT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True, scope="module")
def nothing_old_is_searched() -> None:
    """Each fold that is trained collects garbage; what was loaded before a file's tests is none."""
    gc.collect()
    gc.freeze()


def devices() -> list[str]:
    """The kinds of device that torch can compute on here; the CPU always."""
    kinds = ["cpu"]
    if torch.cuda.is_available():
        kinds.append("cuda")
    if torch.backends.mps.is_available():
        kinds.append("mps")
    return kinds


@pytest.fixture(params=devices())
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """Every device there is, in float32 proper: with TF32 off."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
