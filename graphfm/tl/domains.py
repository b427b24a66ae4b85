"""Domains of a tissue: regions of one mixture of cell types."""

import logging
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_unique_genes
from graphfm.data.cell_groups import components_within, group_numbers
from graphfm.io.files import writable
from graphfm.io.matrix import stored_values
from graphfm.memory import announced
from graphfm.models.domains import mixture_densities, settle_domains
from graphfm.pp.spatial import spatial_graph

logger = logging.getLogger(__name__)

NUM_COMPONENTS, NUM_TYPES, NUM_NEIGHBORS = 15, 30, 18


def spatial_domains(
    adata: AnnData,
    *,
    n_domains: int,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    layer: str | None = None,
    kind: Literal["counts", "normalized", "log1p"] = "counts",
    n_neighbors: int = NUM_NEIGHBORS,
    key_added: str = "spatial_domain",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Divide a tissue, or several slices of one together, into domains.

    1. Genes are standardised slice by slice; 15 principal components are kept.
    2. A Gaussian mixture finds 30 cell types. Another, of the means over each cell and its neighbours, is the start.
    3. Domains that are mixtures of these types settle under a field that draws neighbours into one domain
       (`graphfm.models.domains`). Only the field looks at neighbours, no values are averaged: borders stay sharp.

    The trunk has no part in it yet.

    Parameters
    ----------
    adata
        Cells or spots with coordinates (or a SpatialData or MuData with one table).
    n_domains
        Number of domains; some may end up empty.
    library_key
        Column of ``obs`` that names the slide of each cell. Slides are standardised one by one and never connected;
        domains are common to all.
    spatial_key
        Key in ``obsm`` of the coordinates.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.
    n_neighbors
        Nearest cells of which the domain of a cell is judged.
    key_added
        Prefix of the results.
    seed
        Random state.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="spatial_domain"``:

    - ``obs["spatial_domain"]``: categorical, ``"domain 1"`` the largest;
    - ``obs["spatial_domain_confidence"]``: probability of that domain, 0 to 1;
    - ``uns["spatial_domain"]``: DataFrame, a row a domain: ``domain``, ``size``, ``fraction``, ``confidence`` (mean),
      ``slides`` (how many it is in);
    - ``uns["spatial_domain_params"]``: parameters, and the strength of the field.

    Raises
    ------
    KeyError
        `spatial_key`, `library_key` or `layer` does not exist.
    ValueError
        `n_domains` is below 2 or above half of the cells, a slide has too few cells, or fewer than 2 genes vary.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=100)
    >>> graphfm.tl.spatial_domains(adata, n_domains=4, library_key="slide")
    >>> adata.obs["spatial_domain"].nunique()
    4
    """
    adata = io.as_anndata(adata)
    if not 2 <= n_domains <= adata.n_obs // 2:
        raise ValueError(f"n_domains={n_domains}: pass a number from 2 to half of the {adata.n_obs} cells.")
    check_unique_genes(adata)
    adata = writable(adata, copy=copy)
    neighbors = _neighbors(adata, library_key, spatial_key, n_neighbors)
    slides = group_numbers(adata.obs, library_key)
    with announced(f"domains of {adata.n_obs:,} cells", 60 * stored_values(adata, layer=layer)):
        values = _values(io.expression(adata, layer=layer, kind=kind), slides, seed)
        start = mixture_densities(_blurred(values, neighbors), n_domains, seed=seed)
        types = mixture_densities(values, min(NUM_TYPES, adata.n_obs // 2), seed=seed)
        found = settle_domains(types, neighbors, start / start.sum(axis=1, keepdims=True))
    _write(adata, found.probability, slides, key_added)
    adata.uns[f"{key_added}_params"] = {
        "n_domains": n_domains,
        "library_key": library_key or "",
        "spatial_key": spatial_key,
        "layer": layer or "X",
        "kind": kind,
        "n_neighbors": n_neighbors,
        "seed": seed,
        "field_strength": found.strength,
    }
    return adata if copy else None


def _neighbors(adata: AnnData, library_key: str | None, spatial_key: str, n_neighbors: int) -> sp.csr_matrix:
    """Symmetric graph within slides; the graphs of `adata` stay as they are."""
    shell = AnnData(obs=adata.obs, obsm=dict(adata.obsm))
    spatial_graph(shell, n_neighbors=n_neighbors, library_key=library_key, spatial_key=spatial_key)
    near = shell.obsp[_keys.SPATIAL_CONNECTIVITIES]
    return sp.csr_matrix(near.maximum(near.T))


def _values(logged: sp.csr_matrix, slides: np.ndarray, seed: int) -> np.ndarray:
    """``[cells, components]``, the strongest first."""
    varied = np.flatnonzero(logged.getnnz(axis=0) > 1)
    if len(varied) < 2:
        raise ValueError(f"Only {len(varied)} genes vary. Domains need at least 2.")
    values = components_within(logged[:, varied], slides, num_components=NUM_COMPONENTS, seed=seed)
    return values[:, np.argsort(-np.square(values).sum(axis=0))]


def _blurred(values: np.ndarray, neighbors: sp.csr_matrix) -> np.ndarray:
    """Mean of each cell and its neighbours."""
    return (values + neighbors @ values) / (1 + np.asarray(neighbors.sum(axis=1)))


def _write(adata: AnnData, probability: np.ndarray, slides: np.ndarray, key: str) -> None:
    label = probability.argmax(axis=1)
    sizes = np.bincount(label, minlength=probability.shape[1])
    order = np.argsort(-sizes, kind="stable")
    number = np.count_nonzero(sizes)
    if number < len(sizes):
        logger.warning("spatial_domains: %d of %d domains have no cell", len(sizes) - number, len(sizes))
    names = [f"domain {rank}" for rank in range(1, number + 1)]
    codes, confidence = np.argsort(order)[label], probability.max(axis=1)
    adata.obs[key] = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
    adata.obs[f"{key}_confidence"] = confidence
    cells = pd.DataFrame({"confidence": confidence, "slide": slides}).groupby(codes)
    adata.uns[key] = pd.DataFrame(
        {
            "domain": names,
            "size": cells.size(),
            "fraction": cells.size() / len(label),
            "confidence": cells["confidence"].mean(),
            "slides": cells["slide"].nunique(),
        }
    )
