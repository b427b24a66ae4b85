"""Slices of a tissue in one space: what a cell is, and what its surroundings are."""

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_column, check_key_added, check_unique_genes
from graphfm.data.cell_groups import components_within, group_numbers, order_of_names
from graphfm.io.files import writable
from graphfm.io.matrix import Kind, stored_values
from graphfm.memory import announced
from graphfm.pp.spatial import coordinates_of, spatial_graph

SCALES = (6, 18, 60)
NUM_COMPONENTS = 15


def align_slices(
    adata: AnnData,
    *,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    layer: str | None = None,
    kind: Kind = "counts",
    scales: tuple[int, ...] = SCALES,
    key_added: str = "X_tissue",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Bring the slices of a tissue into one embedding of surroundings.

    Genes are standardised slice by slice, which takes off what a slide does to a gene as a whole; 15 principal
    components of all slices together are averaged over each cell and its 6, 18 and 60 nearest cells of its slice. Cells
    in like surroundings are near each other wherever they lie: labels go from one slice to the next by a linear
    classifier or neighbours in it. Slices that hold different parts of a tissue lose some of that difference when
    they are standardised. Domains with common names: `spatial_domains` with `library_key`.

    Parameters
    ----------
    adata
        Cells or spots with coordinates (or a SpatialData or MuData with one table).
    library_key
        Column of ``obs`` that names the slice of each cell; without it all cells are of one.
    spatial_key
        Key in ``obsm`` of the coordinates, which need not be aligned between slices.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.
    scales
        Numbers of neighbours to average over, one after the other; 0 for the cell alone.
    key_added
        Key in ``obsm``.
    seed
        Of the solver.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written: ``obsm["X_tissue"]`` float32 ``[cells, 15 * scales]`` and ``uns["X_tissue_params"]``.

    Raises
    ------
    KeyError
        `spatial_key`, `library_key` or `layer` does not exist.
    ValueError
        A slice has too few cells for `scales`, `scales` is empty, or fewer than 2 genes vary.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=100)
    >>> graphfm.tl.align_slices(adata, library_key="slide")
    >>> adata.obsm["X_tissue"].shape
    (600, 45)
    """
    adata = io.as_anndata(adata)
    check_key_added(key_added)
    if not scales or min(scales) < 0:
        raise ValueError(f"scales={scales}: pass numbers of neighbours, at least one; 0 is the cell alone.")
    check_unique_genes(adata)
    slices = slices_of(adata, library_key)
    adata = writable(adata, copy=copy)
    graphs = [tissue_neighbors(adata, library_key, spatial_key, scale, "scales") if scale else None for scale in scales]
    with announced(f"surroundings of {adata.n_obs:,} cells", 60 * stored_values(adata, layer=layer)):
        values = slice_components(io.expression(adata, layer=layer, kind=kind), slices, NUM_COMPONENTS, seed)
    means = [values if graph is None else neighborhood_mean(values, graph) for graph in graphs]
    adata.obsm[key_added] = np.hstack(means).astype(np.float32)
    adata.uns[f"{key_added}_params"] = {
        "library_key": library_key or "",
        "spatial_key": spatial_key,
        "layer": layer or "X",
        "kind": kind,
        "scales": list(scales),
        "seed": seed,
    }
    return adata if copy else None


def slices_of(adata: AnnData, library_key: str | None, name: str = "adata") -> np.ndarray:
    """Number of each cell's slice, after a check of the column."""
    if not adata.n_obs:
        raise ValueError(f"{name} has no cells.")
    if library_key is not None:
        check_column(adata.obs, library_key, "library_key", complete=True, name=name)
    return group_numbers(adata.obs, library_key)


def tissue_neighbors(
    adata: AnnData, library_key: str | None, spatial_key: str, n_neighbors: int, argument: str = "n_neighbors"
) -> sp.csr_matrix:
    """Symmetric graph within slices; the graphs of `adata` stay as they are.

    Of cells as far away, as on a lattice, those first by name are neighbours.
    """
    smallest = int(np.bincount(slices_of(adata, library_key)).min())
    if smallest <= n_neighbors:
        raise ValueError(
            f"{argument}={n_neighbors} needs at least {n_neighbors + 1} cells in a slice, one has {smallest}. "
            "Leave that slice out, or ask for fewer."
        )
    order = order_of_names(adata.obs)
    place = np.argsort(order)
    shell = AnnData(obs=adata.obs, obsm={_keys.SPATIAL: coordinates_of(adata, spatial_key)})[order].copy()
    spatial_graph(shell, n_neighbors=n_neighbors, library_key=library_key)
    near = shell.obsp[_keys.SPATIAL_CONNECTIVITIES][place][:, place]
    return sp.csr_matrix(near.maximum(near.T))


def slice_components(logged: sp.csr_matrix, slices: np.ndarray, number: int, seed: int) -> np.ndarray:
    """``[cells, components]`` of expression that is standardised slice by slice, the strongest first, signs fixed."""
    from sklearn.utils.sparsefuncs import mean_variance_axis

    mean, variance = mean_variance_axis(logged, axis=0)
    varied = np.flatnonzero((logged.getnnz(axis=0) > 1) & (variance > 1e-6 * np.square(mean)))
    if len(varied) < 2:
        raise ValueError(f"Only {len(varied)} genes vary; at least 2 are needed.")
    names, code = np.unique(slices, return_inverse=True)
    members = sp.csr_matrix((np.ones(len(code), np.float32), (code, np.arange(len(code)))))
    common = np.count_nonzero((members @ logged[:, varied]).getnnz(axis=0) == len(names))
    if common < 2:
        raise ValueError(
            f"The slices have {common} genes in common that vary; at least 2 are needed. Were "
            "panels of different genes put together? Compare those that share genes."
        )
    values = components_within(logged[:, varied], slices, num_components=number, seed=seed)
    values = values[:, np.argsort(-np.square(values).sum(axis=0))]
    return values * np.where(np.power(values, 3).sum(axis=0) < 0, -1.0, 1.0)


def neighborhood_mean(values: np.ndarray, neighbors: sp.csr_matrix) -> np.ndarray:
    """Mean of each cell and its neighbours."""
    return (values + neighbors @ values) / (1 + np.asarray(neighbors.sum(axis=1)))
