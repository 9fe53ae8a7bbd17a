"""The torchaudio guard: in new processes, because imports happen once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(code: str, *paths: Path) -> str:
    """Standard output of ``code`` in a new process, with ``paths`` first in sys.path."""
    places = [str(p) for p in (*paths, ROOT)]
    program = f"import sys; sys.path[:0] = {places!r}\n" + textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def package(root: Path, init: str, extension: str) -> Path:
    """A torchaudio of ours: its __init__ and its compiled half."""
    place = root / "torchaudio"
    place.mkdir()
    (place / "__init__.py").write_text("from . import _extension\n" + textwrap.dedent(init))
    (place / "_extension.py").write_text(textwrap.dedent(extension))
    return root


GUARDED = """
    from emopeft.guard import ensure_torchaudio
    print(ensure_torchaudio())
"""


def test_the_installed_torchaudio_and_all_that_import_it() -> None:
    if importlib.util.find_spec("torchaudio") is None:
        pytest.skip("torchaudio is not installed")
    works = run(
        """
        try:
            import torchaudio
            print(True)
        except Exception as error:
            print(False)
        """
    )
    active = run(
        """
        from emopeft.guard import ensure_torchaudio, set_audio_backend
        active = ensure_torchaudio()
        assert ensure_torchaudio() == active
        import torch, torchaudio, torchaudio.functional, torchaudio.compliance.kaldi
        assert torchaudio.compliance.kaldi.fbank(torch.randn(1, 16000)).shape[1] == 23
        import transformers, peft
        assert transformers.HubertModel and peft.LoraConfig
        before = hasattr(torchaudio, "set_audio_backend")
        with set_audio_backend():
            assert torchaudio.set_audio_backend("sox_io") is None
            import s3prl.upstream.hubert.hubconf
        assert hasattr(torchaudio, "set_audio_backend") == before
        print(active)
        """
    )
    # Active exactly where the real import fails.
    assert active == str(works == "False")


def test_importing_any_upstream_is_guarded() -> None:
    if importlib.util.find_spec("torchaudio") is None:
        pytest.skip("torchaudio is not installed")
    assert run("import emopeft.upstream.base, torchaudio; print(torchaudio.__version__)")


def test_a_sound_torchaudio_is_left_alone(tmp_path: Path) -> None:
    root = package(tmp_path, "sound = True", "_IS_TORCHAUDIO_EXT_AVAILABLE = True")
    code = (
        GUARDED
        + """
    import torchaudio
    print(torchaudio.sound, torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE)
    """
    )
    assert run(code, root).split() == ["False", "True", "True"]


def test_a_broken_compiled_half_is_replaced(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        """
        from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE, fail_if_no_align
        @fail_if_no_align
        def align(): return "aligned"
        """,
        "raise OSError('libcudart.so.13: cannot open shared object file')",
    )
    code = (
        GUARDED
        + """
    import torchaudio
    print(torchaudio.align(), torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE)
    """
    )
    assert run(code, root).split() == ["True", "aligned", "False"]


@pytest.mark.parametrize(
    "init",
    [
        "raise OSError('not the compiled half')",
        "import nowhere",
        "if _extension._IS_TORCHAUDIO_EXT_AVAILABLE: raise ValueError('a stand-in would hide it')",
    ],
)
def test_another_fault_is_not_hidden(tmp_path: Path, init: str) -> None:
    root = package(tmp_path, init, "_IS_TORCHAUDIO_EXT_AVAILABLE = True")
    code = (
        GUARDED
        + """
    try:
        import torchaudio
    except Exception:
        print("still fails")
    print("torchaudio._extension" in sys.modules and
          hasattr(sys.modules["torchaudio._extension"], "__emopeft_stand_in__"))
    """
    )
    assert run(code, root).splitlines() == ["False", "still fails", "False"]


def test_two_faults_are_not_hidden(tmp_path: Path) -> None:
    root = package(tmp_path, "raise ValueError('and this')", "raise OSError('compiled half')")
    code = (
        GUARDED
        + """
    try:
        import torchaudio
    except OSError as error:
        print(error)
    """
    )
    assert run(code, root).splitlines() == ["False", "compiled half"]


def test_without_torchaudio(tmp_path: Path) -> None:
    code = """
    import sys
    sys.modules["torchaudio"] = None  # makes every import of it fail as if it were absent
    from emopeft.guard import ensure_torchaudio, set_audio_backend
    print(ensure_torchaudio())
    with set_audio_backend():
        print("body")
    """
    assert run(code).split() == ["False", "body"]
