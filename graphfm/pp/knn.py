"""Cells that look alike."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm.data.cell_groups import order_of_names
from graphfm.io.files import writable
from graphfm.io.matrix import Kind, in_memory, located, stack
from graphfm.pp.search import EXACT_CELLS, ApproximateNeighbors

logger = logging.getLogger(__name__)

N_NEIGHBORS = 15
N_TOP_GENES = 2000
PCA_CELLS = 50_000


def knn_graph(
    adata: AnnData,
    *,
    n_neighbors: int = N_NEIGHBORS,
    use_rep: str | None = None,
    n_pcs: int = 50,
    layer: str | None = None,
    kind: Kind = "counts",
    metric: str = "euclidean",
    key_added: str | None = None,
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Graph of the nearest neighbours in expression, by :func:`scanpy.pp.neighbors`.

    Without ``use_rep`` it uses ``obsm["X_pca"]``, and makes it first where it is missing: log-normalisation, the 2000
    most variable genes if there are more, principal components (their axes from 50,000 cells drawn at random, if there
    are more). ``X`` and the layers are never changed, and never read as a whole: `adata` may be backed by a file.

    Parameters
    ----------
    adata
        Cells x genes (or a SpatialData or MuData with one table).
    n_neighbors
        Neighbours of a cell, itself included (scanpy's convention).
    use_rep
        Key in ``obsm`` to measure distances in; ``"X"`` for ``adata.X`` itself.
    n_pcs
        Principal components to make, or to use of ``obsm["X_pca"]``; fewer where the data do not have as many.
    layer, kind
        Where the expression is, and what it is: see :func:`graphfm.io.expression`.
    metric
        Distance, by scanpy's names.
    key_added
        None writes scanpy's keys, otherwise ``{key_added}_connectivities`` and so on.
    seed
        Random state. The same seed gives the same graph. Neighbours are exact up to 50,000 cells, approximate beyond:
        the share of true ones is then measured on 200 cells and kept as ``uns["neighbors"]["params"]["recall"]``.
    copy
        Return a changed copy instead of writing to ``adata``.

    Returns
    -------
    AnnData or None
        Writes ``obsp["connectivities"]`` (symmetric, in (0, 1]), ``obsp["distances"]``, ``uns["neighbors"]``, and
        ``obsm["X_pca"]`` ``[n_obs, n_pcs]`` with ``varm["PCs"]`` (0 for genes left out) if they were made here.

    Raises
    ------
    ValueError
        If ``n_neighbors`` is not in 2 to ``n_obs - 1``, there are fewer than 3 cells, or the representation holds NaN.
    KeyError
        If ``use_rep`` does not exist.

    References
    ----------
    McInnes, Healy and Melville 2018, arXiv:1802.03426 (weights); Wolf et al. 2018, doi:10.1186/s13059-017-1382-0.
    """
    import scanpy as sc

    adata = io.as_anndata(adata)
    if adata.n_obs < 3:
        raise ValueError(f"adata has {adata.n_obs} cells: a graph of neighbours needs at least 3.")
    if not 2 <= n_neighbors < adata.n_obs:
        raise ValueError(
            f"n_neighbors={n_neighbors} must be at least 2 and below the number of cells, n_obs={adata.n_obs}. "
            f"Pass n_neighbors={min(N_NEIGHBORS, adata.n_obs - 1)} or give more cells."
        )
    if n_pcs < 1:
        raise ValueError(f"n_pcs={n_pcs} must be at least 1.")
    if layer is not None:
        located(adata, layer)  # an error where there is none, also if it is not read
    adata = writable(adata, copy=copy)
    name = use_rep or _keys.X_PCA
    of_expression = use_rep is None and _keys.X_PCA not in adata.obsm
    if of_expression:
        write_components(adata, n_pcs=n_pcs, layer=layer, kind=kind, seed=seed)
    elif layer is not None:
        logger.warning("layer=%r is not read: the graph is of adata.obsm[%r], which is there", layer, name)
    values = _representation(adata, name)
    if name == _keys.X_PCA:
        values = values[:, :n_pcs]
    shell = AnnData(obs=adata.obs[[]], obsm={name: values})
    exact = adata.n_obs <= EXACT_CELLS
    search = "sklearn" if exact else ApproximateNeighbors(n_neighbors=n_neighbors, metric=metric, seed=seed)
    sc.pp.neighbors(
        shell,
        n_neighbors=n_neighbors,
        use_rep=name,
        metric=metric,
        transformer=search,
        random_state=seed,
        key_added=key_added,
    )
    for key, matrix in shell.obsp.items():
        adata.obsp[key] = matrix
    key = key_added or _keys.NEIGHBORS
    params = {
        **shell.uns[key]["params"],
        "n_dims": values.shape[1],
        "exact": exact,
    }
    if of_expression:
        params |= {"layer": layer or "X", "kind": kind}
    if not exact:
        params["recall"] = search.recall
        logger.info("approximate search found %.1f%% of the true neighbours of a sample", 100 * search.recall)
    adata.uns[key] = {**shell.uns[key], "params": params}
    return adata if copy else None


def _representation(adata: AnnData, name: str) -> Any:
    if name == "X":
        values = in_memory(adata.X)
    elif name in adata.obsm:
        values = adata.obsm[name]
        values = values if sp.issparse(values) else np.asarray(values)
    else:
        found = ", ".join(map(repr, adata.obsm)) or "none"
        raise KeyError(
            f"adata.obsm has no {name!r}. Compute it first, or pass use_rep= (found: {found}) or use_rep=None."
        )
    finite = np.isfinite(values.data if sp.issparse(values) else values)
    if not finite.all():
        bad = "some" if sp.issparse(values) else int((~finite.reshape(len(values), -1).all(axis=1)).sum())
        raise ValueError(
            f"adata.obsm[{name!r}] holds NaN or infinite values in {bad} cells. Remove or repair them first."
        )
    return values


def write_components(
    adata: AnnData, *, n_pcs: int = 50, layer: str | None = None, kind: Kind = "counts", seed: int = 0
) -> None:
    """Write ``obsm["X_pca"]`` and ``varm["PCs"]``; arguments and errors as of `principal_axes`."""
    if n_pcs < 1:
        raise ValueError(f"n_pcs={n_pcs} must be at least 1.")
    target = io.typical_sum(adata, layer=layer, kind=kind)
    loadings = principal_axes(adata, n_pcs=n_pcs, layer=layer, kind=kind, target_sum=target, seed=seed)
    chunks = io.row_chunks(adata, layer=layer, kind=kind, target_sum=target)
    scores = np.concatenate([logged @ loadings for _, logged in chunks])
    adata.obsm[_keys.X_PCA] = (scores - scores.mean(axis=0, dtype=np.float64)).astype(np.float32)
    adata.varm[_keys.PCS] = loadings


def principal_axes(
    adata: AnnData,
    *,
    n_pcs: int = 50,
    layer: str | None = None,
    kind: Kind = "counts",
    target_sum: float | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Principal axes of log-normalised expression by scanpy's standard recipe.

    Of more than 50,000 cells, 50,000 drawn at random decide about genes and axes.

    Parameters
    ----------
    adata, layer, kind
        As in :func:`knn_graph`.
    n_pcs
        Components; fewer where the data do not have as many.
    target_sum
        As in :func:`graphfm.io.expression`.
    seed
        Random state.

    Returns
    -------
    float32 ``[n_vars, n_pcs]``, 0 for genes left out.

    Raises
    ------
    ValueError
        If no gene varies.
    """
    import scanpy as sc

    expression = _sample(adata, layer=layer, kind=kind, target_sum=target_sum, seed=seed)
    chosen = _variable_genes(expression)
    values = expression[:, chosen]
    # the solver for sparse matrices needs fewer components than either side has
    possible = min(values.shape) - 1
    if possible < n_pcs:
        logger.info("n_pcs=%d is more than %d cells x %d genes allow: %d", n_pcs, *values.shape, max(possible, 1))
    loadings = np.zeros((expression.shape[1], max(1, min(n_pcs, possible))), dtype=np.float32)
    if possible < 1:
        # a single gene is its own principal component
        loadings[chosen] = 1.0
    else:
        _, components, *_ = sc.pp.pca(
            values, n_comps=loadings.shape[1], random_state=seed, return_info=True, dtype="float32"
        )
        loadings[chosen] = components.T
    return loadings


def _sample(adata: AnnData, *, layer: str | None, kind: Kind, target_sum: float | None, seed: int) -> sp.csr_matrix:
    """Expression of at most `PCA_CELLS` cells, in the order they have."""
    chosen = np.ones(adata.n_obs, dtype=bool)
    if adata.n_obs > PCA_CELLS:
        # what is drawn depends on the cells' names, not on the order of the file
        chosen[order_of_names(adata.obs)[np.random.default_rng(seed).permutation(adata.n_obs)[PCA_CELLS:]]] = False
    parts, start = [], 0
    for _, logged in io.row_chunks(adata, layer=layer, kind=kind, target_sum=target_sum):
        parts.append(logged[chosen[start : start + logged.shape[0]]])
        start += logged.shape[0]
    return stack(parts)


def _variable_genes(expression: sp.csr_matrix) -> np.ndarray:
    """Indices of the genes to take components of: expressed, and at most the 2000 most variable."""
    import scanpy as sc

    varying = np.flatnonzero((expression.max(axis=0) != expression.min(axis=0)).toarray().ravel())
    if len(varying) == 0:
        raise ValueError("No gene varies between cells: there is nothing to measure distances in. Check the counts.")
    if len(varying) <= N_TOP_GENES:
        return varying
    shell = AnnData(expression[:, varying])
    try:
        flags = sc.pp.highly_variable_genes(shell, n_top_genes=N_TOP_GENES, flavor="seurat", inplace=False)
        return varying[flags["highly_variable"].to_numpy()]
    # scanpy bins genes by mean, which odd data (all means alike, say) leave without bins
    except (ValueError, IndexError) as error:
        logger.warning("highly variable genes failed (%s): taking the genes of largest variance", error)
        mean = np.asarray(expression.mean(axis=0, dtype=np.float64)).ravel()
        variance = np.asarray(expression.multiply(expression).mean(axis=0, dtype=np.float64)).ravel() - mean**2
        return np.sort(varying[np.argsort(-variance[varying], kind="stable")[:N_TOP_GENES]])
