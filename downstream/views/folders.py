"""Folders of recordings that views draw from: noises, impulse responses."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from emopeft.downstream.corpora.audio import is_audio
from emopeft.errors import UserError


@functools.lru_cache(maxsize=32)
def files_in(folder: str) -> tuple[Path, ...]:
    """Its recordings at any depth, sorted by their place in it.

    Raises:
        UserError: no folder, or none of them in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; name one that holds recordings")
    files = sorted(p for p in root.rglob("*") if is_audio(p) and p.is_file())
    if not files:
        raise UserError(f"{root} holds no .wav or .flac file; name a folder that holds recordings")
    return tuple(files)


@functools.lru_cache(maxsize=32)
def digest_of(folder: str) -> str:
    """Digest of all its recordings and of their places in it, read once."""
    root, sha = Path(folder).expanduser(), hashlib.sha256()
    for path in files_in(folder):
        sha.update(f"{path.relative_to(root).as_posix()}\n".encode())
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()
