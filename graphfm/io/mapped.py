"""Sparse matrices that grow by rows: in memory, or in files that are mapped into it and read where they are touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from graphfm.io.matrix import stack

POINTER = "pointer.npy"


class GrowingMatrix:
    """Chunks of rows, put together as one CSR matrix.

    Parameters
    ----------
    folder
        Where to keep the entries (12 bytes each); None: in memory. What is there is replaced.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._chunks, self._lengths, self._width = folder, [], [np.zeros(1, dtype=np.int64)], 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in _files(folder):
                path.open("wb").close()

    def append(self, chunk: sp.csr_matrix) -> None:
        """Add rows, float32 ``[r, genes]``; OSError where the disk is full."""
        self._width = chunk.shape[1]
        if self._folder is None:
            self._chunks.append(chunk)
            return
        self._lengths.append(np.diff(chunk.indptr).astype(np.int64))
        # the type that scipy needs for the pointer too, once there are 2^31 entries
        parts = (chunk.indices.astype(np.int64), chunk.data.astype(np.float32))
        for path, part in zip(_files(self._folder), parts, strict=True):
            try:
                with path.open("ab") as file:
                    file.write(part.data)
            except OSError as error:
                needed = f"{sum(x.nbytes for x in parts) / 1e6:.0f} MB more are needed"
                raise OSError(error.errno, f"cannot write {path} ({error.strerror}): {needed}.") from error

    def matrix(self) -> sp.csr_matrix:
        """All rows so far."""
        if self._folder is None:
            return stack(self._chunks)
        np.save(self._folder / POINTER, np.cumsum(np.concatenate(self._lengths)))
        return open_matrix(self._folder, self._width)


def open_matrix(folder: Path, num_columns: int) -> sp.csr_matrix:
    """What a `GrowingMatrix` left in a folder."""
    pointer = np.load(folder / POINTER)
    indices, data = _files(folder)
    result = sp.csr_matrix((len(pointer) - 1, num_columns), dtype=np.float32)
    stored = indices.stat().st_size // 8, data.stat().st_size // 4
    if stored != (pointer[-1], pointer[-1]):  # scipy would read on behind the end
        raise ValueError(f"{folder} holds {stored[0]} places and {stored[1]} values, and should hold {pointer[-1]}.")
    if pointer[-1] == 0:  # nothing to map
        return result
    # the constructor would read all indices, and copy them where a smaller type is enough
    result.data, result.indices = np.memmap(data, np.float32, "r"), np.memmap(indices, np.int64, "r")
    result.indptr = pointer
    return result


def _files(folder: Path) -> tuple[Path, Path]:
    return folder / "indices.i64", folder / "data.f32"
