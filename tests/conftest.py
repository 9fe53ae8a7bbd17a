"""The demo corpus, once per session, and a cache that no test shares with the user."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import emopeft.upstream  # noqa: F401  (its guard must run before any test imports transformers)
from emopeft.downstream.corpora.demo import synthesise


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 synthetic clips."""
    root = tmp_path_factory.mktemp("demo") / "corpus"
    synthesise(root)
    return root


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Frozen parts of tests are kept in a folder of the test session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOPEFT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield
