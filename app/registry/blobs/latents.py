"""Deletes the encodings of deleted images and captions from the cache of this machine.

The files of the cache begin with the hash of the image or caption they were made from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from sqlmodel import col, select

from app.registry.db import Database
from app.registry.tables.blobs import ErasedHash

CACHE = Path("cache", "latents")


def forget(data_dir: Path, hashes: Iterable[str]) -> None:
    """Delete what was made of these images and captions; missing files are ignored."""
    folders = [path for path in (data_dir / CACHE).glob("*") if path.is_dir()]
    for sha256 in hashes:
        for folder in folders:
            for path in (folder / sha256[:2]).glob(f"{sha256}*.safetensors"):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def forget_erased(database: Database, data_dir: Path, *, after: int = 0) -> int:
    """Delete what was made of all that was deleted lately, on whatever machine.

    `after`: what this function returned before; it then skips what it has seen.
    """
    with database.read() as session:
        query = select(ErasedHash).where(col(ErasedHash.id) > after).order_by(col(ErasedHash.id))
        rows = session.exec(query).all()
    forget(data_dir, {row.sha256 for row in rows})
    return rows[-1].id or after if rows else after


def measure_cache(data_dir: Path) -> tuple[int, int]:
    """Number and total size of the cached encodings of this machine."""
    sizes = [path.stat().st_size for path in _cache_files(data_dir)]
    return len(sizes), sum(sizes)


def empty_cache(data_dir: Path) -> int:
    """Delete the cache of encodings; the next runs make it again. Returns its size in bytes."""
    freed = 0
    for path in _cache_files(data_dir):
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def _cache_files(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / CACHE).rglob("*") if path.is_file()]
