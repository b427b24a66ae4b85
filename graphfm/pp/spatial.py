"""Cells that touch."""

from __future__ import annotations

import logging
import warnings
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from graphfm import _keys, io
from graphfm._checks import check_column
from graphfm.io.files import writable

logger = logging.getLogger(__name__)

DEFAULT_NEIGHBORS = {"knn": 8, "grid": 6}
SLIDE_COLUMNS = ("library_id", "slide", "slice", "section", "sample")


def spatial_graph(
    adata: AnnData,
    *,
    kind: Literal["knn", "radius", "delaunay", "grid"] = "knn",
    n_neighbors: int | None = None,
    radius: float | tuple[float, float] | None = None,
    n_rings: int | None = None,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    key_added: str = "spatial",
    copy: bool = False,
) -> AnnData | None:
    """Graph of neighbouring cells in a tissue, by squidpy's builders.

    ========== ====================================== =======================================
    kind       edges                                  arguments
    ========== ====================================== =======================================
    knn        to the nearest cells (not symmetric)   ``n_neighbors`` (8)
    radius     to all cells within a distance         ``radius`` (needed; two: from and to)
    delaunay   of the Delaunay triangulation          ``radius`` (longest edge, or from and to)
    grid       on a lattice such as Visium's          ``n_neighbors`` (6), ``n_rings`` (1)
    ========== ====================================== =======================================

    Parameters
    ----------
    adata
        Cells with coordinates (or a SpatialData or MuData with one table).
    kind
        How cells become neighbours; an argument of another kind is an error.
    n_neighbors
        Neighbours of a cell, itself not counted. Without it, cells of a slide that has fewer than knn's default have
        all others there.
    radius
        Distance in the units of the coordinates.
    n_rings
        Rings of lattice neighbours.
    library_key
        Column in ``obs`` that names the slide of each cell. Slides are never connected. Needed if there are several:
        without it, cells of different slides are neighbours where their coordinates overlap.
    spatial_key
        Key in ``obsm`` of the coordinates, ``[n_obs, 2 or 3]``.
    key_added
        Prefix of the keys.
    copy
        Return a changed copy instead of writing to ``adata``.

    Returns
    -------
    AnnData or None
        Writes ``obsp["spatial_connectivities"]`` (0 or 1; row = cell, columns = its neighbours),
        ``obsp["spatial_distances"]`` (units of the coordinates, number of the ring for a grid; two cells in one place
        have distance 0 and so no entry) and ``uns["spatial_neighbors"]``. A cell without neighbours is fine.

    Raises
    ------
    KeyError
        If the coordinates or the column of slides do not exist.
    ValueError
        If coordinates are NaN, a slide has too few cells, or arguments do not fit ``kind``.

    References
    ----------
    Palla et al. 2022, doi:10.1038/s41592-021-01358-2.
    """
    adata = io.as_anndata(adata)
    options = _options(kind, n_neighbors=n_neighbors, radius=radius, n_rings=n_rings)
    coordinates = coordinates_of(adata, spatial_key)
    library = _library(adata, library_key)
    fewer = kind == "knn" and n_neighbors is None
    if not fewer:
        _check_sizes(library, kind, options.get("n_neighs"))
    adata = writable(adata, copy=copy)
    if kind == "delaunay":
        coordinates = _separate_duplicates(coordinates, library)
    shell = AnnData(obs=pd.DataFrame({"library": library}, index=adata.obs_names), obsm={_keys.SPATIAL: coordinates})
    connectivities, distances = _build_or_fewer(shell, options) if fewer else _build(shell, kind, options)
    adata.obsp[f"{key_added}_connectivities"] = connectivities
    adata.obsp[f"{key_added}_distances"] = distances
    params = {"kind": kind, "spatial_key": spatial_key, "library_key": library_key, **options}
    params = {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()}
    adata.uns[f"{key_added}_neighbors"] = {
        "connectivities_key": f"{key_added}_connectivities",
        "distances_key": f"{key_added}_distances",
        "params": {name: value for name, value in params.items() if value is not None},
    }
    isolated = int((np.diff(connectivities.indptr) == 0).sum())
    if isolated:
        logger.info("spatial_graph: %d of %d cells have no neighbour", isolated, adata.n_obs)
    if library_key is None:
        _warn_of_joined_slides(adata.obs, connectivities)
    return adata if copy else None


def _warn_of_joined_slides(obs: pd.DataFrame, connectivities: csr_matrix) -> None:
    """Where edges join what a column of a usual name tells apart."""
    for key in obs.columns.intersection(SLIDE_COLUMNS, sort=False):
        code = pd.factorize(obs[key])[0]
        joined = np.repeat(code, np.diff(connectivities.indptr)) != code[connectivities.indices]
        if joined.any():
            logger.warning(
                "spatial_graph: %.0f %% of the edges join cells that differ in adata.obs[%r]. If these are slides, "
                "pass library_key=%r",
                100 * joined.mean(),
                key,
                key,
            )


def _options(kind: str, *, n_neighbors: int | None, radius: Any, n_rings: int | None) -> dict[str, Any]:
    """Arguments for squidpy's builder of this kind, defaults filled in; those of another kind are refused."""
    takes = {
        "knn": ("n_neighbors",),
        "radius": ("radius",),
        "delaunay": ("radius",),
        "grid": ("n_neighbors", "n_rings"),
    }
    if kind not in takes:
        raise ValueError(f"kind={kind!r} is unknown. Use one of {', '.join(map(repr, takes))}.")
    for name, value in (("n_neighbors", n_neighbors), ("radius", radius), ("n_rings", n_rings)):
        if value is not None and name not in takes[kind]:
            raise ValueError(f"{name}={value} has no meaning for kind={kind!r}, which takes {', '.join(takes[kind])}.")
        if value is not None and name != "radius" and value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if kind == "radius" and radius is None:
        raise ValueError("radius is needed for kind='radius': a distance in the units of the coordinates.")
    if radius is not None:
        bounds = np.sort(np.atleast_1d(np.asarray(radius, dtype=float)))
        if len(bounds) > 2 or not np.isfinite(bounds).all() or bounds[0] < 0 or bounds[-1] == 0:
            raise ValueError(f"radius={radius} must be a positive distance, or two.")
        return {"radius": float(bounds[0]) if len(bounds) == 1 else (float(bounds[0]), float(bounds[1]))}
    if kind == "delaunay":
        return {}
    options = {"n_neighs": int(n_neighbors or DEFAULT_NEIGHBORS[kind])}
    return {**options, "n_rings": int(n_rings or 1)} if kind == "grid" else options


def _build(shell: AnnData, kind: str, options: dict[str, Any]) -> tuple[Any, Any]:
    from scipy.spatial import QhullError

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=SyntaxWarning, module="docrep")  # of squidpy's own docstrings
        from squidpy import gr

    builders = {
        "knn": gr.spatial_neighbors_knn,
        "radius": gr.spatial_neighbors_radius,
        "delaunay": gr.spatial_neighbors_delaunay,
        "grid": gr.spatial_neighbors_grid,
    }
    # squidpy announces every graph through this logger; what a user needs to know is in uns
    announcer = logging.getLogger("spatialdata._logging")
    level = announcer.level
    announcer.setLevel(logging.WARNING)
    try:
        result = builders[kind](shell, library_key="library", copy=True, **options)
    except QhullError as error:
        raise ValueError(
            "The cells of a slide lie on one line (in 3-D: in one plane), which has no triangulation. Use kind='knn'."
        ) from error
    finally:
        announcer.setLevel(level)
    return result.connectivities.tocsr(), result.distances.tocsr()


def _build_or_fewer(shell: AnnData, options: dict[str, Any]) -> tuple[csr_matrix, csr_matrix]:
    """As `_build` for knn; cells of a slide with too few others have all of these."""
    others = shell.obs["library"].map(shell.obs["library"].value_counts()).to_numpy(dtype=int) - 1
    numbers = np.minimum(others, options["n_neighs"])
    if (numbers == options["n_neighs"]).all():
        return _build(shell, "knn", options)
    connectivities = distances = csr_matrix((shell.n_obs, shell.n_obs))
    for number in np.unique(numbers[numbers > 0]):
        rows = np.flatnonzero(numbers == number)
        place = csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(shell.n_obs, len(rows)))
        near, far = _build(shell[rows].copy(), "knn", {**options, "n_neighs": int(number)})
        connectivities, distances = connectivities + place @ near @ place.T, distances + place @ far @ place.T
    return connectivities, distances


def coordinates_of(adata: AnnData, spatial_key: str) -> np.ndarray:
    """Coordinates of the cells, checked, ``[cells, 2 or 3]``."""
    if spatial_key not in adata.obsm:
        found = ", ".join(map(repr, adata.obsm)) or "none"
        raise KeyError(
            f"adata.obsm has no {spatial_key!r}. Put the coordinates of the cells there, or pass spatial_key= "
            f"(found: {found})."
        )
    coordinates = np.array(adata.obsm[spatial_key], dtype=np.float64)
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise ValueError(f"adata.obsm[{spatial_key!r}] has shape {coordinates.shape}: 2 or 3 columns are needed.")
    bad = int((~np.isfinite(coordinates).all(axis=1)).sum())
    if bad:
        raise ValueError(f"adata.obsm[{spatial_key!r}] is NaN or infinite for {bad} cells. Remove those cells first.")
    return coordinates


def _library(adata: AnnData, library_key: str | None) -> pd.Categorical:
    if library_key is None:
        return pd.Categorical(["all"] * adata.n_obs)
    check_column(adata.obs, library_key, "library_key", complete=True)
    return pd.Categorical(adata.obs[library_key].astype(str))


def _check_sizes(library: pd.Categorical, kind: str, n_neighbors: int | None) -> None:
    least = n_neighbors + 1 if n_neighbors is not None else 3 if kind == "delaunay" else 1
    for name, size in library.value_counts().items():
        if size < least:
            what = f"n_neighbors={n_neighbors}" if n_neighbors is not None else f"kind={kind!r}"
            raise ValueError(
                f"{what} needs at least {least} cells in a slide, {name!r} has {size}. "
                "Lower n_neighbors, leave the slide out, or use kind='radius'."
            )


def _separate_duplicates(coordinates: np.ndarray, library: pd.Categorical) -> np.ndarray:
    """Move cells in one place apart by a thousandth of the way to the next, since a triangulation drops all but one.

    Slides are moved to the origin, for far from it a triangulation, which squares coordinates, does not see the step.
    """
    coordinates = coordinates - pd.DataFrame(coordinates).groupby(library.codes).transform("mean").to_numpy()
    keyed = np.column_stack([library.codes, coordinates])
    places, inverse, size = np.unique(keyed, axis=0, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(size[inverse.ravel()] > 1)
    if len(repeated) == 0:
        return coordinates
    logger.info("spatial_graph: %d cells share their place with another one", len(repeated))
    gap = np.ones(len(places))
    for slide in np.unique(places[:, 0]):
        here = np.flatnonzero(places[:, 0] == slide)
        if len(here) > 1:
            gap[here] = cKDTree(places[here, 1:]).query(places[here, 1:], k=2)[0][:, 1]
    shift = np.random.default_rng(0).uniform(-1, 1, size=(len(repeated), coordinates.shape[1]))
    separated = coordinates.copy()
    separated[repeated] += 1e-3 * gap[inverse.ravel()[repeated], np.newaxis] * shift
    return separated
