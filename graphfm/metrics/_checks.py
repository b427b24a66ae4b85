"""Checks of inputs that several metrics share."""

from __future__ import annotations

import numpy as np
import pandas as pd


def matrix(values: np.ndarray, *, name: str, num_rows: int | None = None) -> np.ndarray:
    """A finite 2-D float array, or a ValueError that says what is wrong."""
    array = np.asarray(values)
    if array.ndim != 2:
        raise ValueError(f"{name} must have two dimensions [cells, features], got shape {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if num_rows is not None and len(array) != num_rows:
        raise ValueError(f"{name} has {len(array)} rows, but there are {num_rows} labels. Pass the same cells to both.")
    bad = int((~np.isfinite(array)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{name} has NaN or infinite values in {bad} of {len(array)} rows. Drop or mend these cells.")
    return array


def codes(labels: np.ndarray, *, name: str, num_rows: int | None = None) -> np.ndarray:
    """Labels as integers 0, 1, ... without gaps; missing labels are an error."""
    if np.ndim(labels) != 1:
        raise ValueError(f"{name} must have one dimension [cells], got shape {np.shape(labels)}.")
    if num_rows is not None and len(labels) != num_rows:
        raise ValueError(f"{name} has length {len(labels)}, expected {num_rows}. Pass the same cells to both.")
    values = pd.Series(labels).reset_index(drop=True)
    missing = int(values.isna().sum())
    if missing:
        raise ValueError(f"{name} is missing for {missing} of {len(values)} cells. Drop these cells first.")
    if values.empty:
        raise ValueError(f"{name} is empty.")
    return pd.factorize(values)[0]


def several(values: np.ndarray, *, name: str) -> None:
    """Raise when all labels are equal."""
    if len(np.unique(values)) < 2:
        raise ValueError(f"{name} has one class only, so there is nothing to tell apart. Pass labels of two or more.")
