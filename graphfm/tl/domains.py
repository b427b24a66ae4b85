"""Domains of a tissue: regions of one mixture of cell types, found or given."""

import logging
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_column, check_key_added, check_unique_genes
from graphfm.data.cell_groups import order_of_names
from graphfm.io.files import named_columns, writable
from graphfm.io.matrix import Kind, stored_values
from graphfm.memory import announced
from graphfm.models.domains import Domains, choose_number, mixture_densities, nested_levels, vote_domains
from graphfm.tl.slices import neighborhood_mean, slice_components, slices_of, tissue_neighbors

logger = logging.getLogger(__name__)

NUM_COMPONENTS, NUM_TYPES, NUM_NEIGHBORS = 15, 30, 18
OTHER_TYPE = 1e-3
"""Odds that a cell is of another type than it is labelled."""


def spatial_domains(
    adata: AnnData,
    *,
    n_domains: int | None = None,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    layer: str | None = None,
    kind: Kind = "counts",
    n_neighbors: int = NUM_NEIGHBORS,
    key_added: str = "spatial_domain",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Divide a tissue, or several slices of one together, into domains.

    1. Genes are standardised slice by slice; 15 principal components are kept.
    2. A Gaussian mixture finds 30 cell types. Another, of the means over each cell and its neighbours, is the start.
    3. Domains that are mixtures of these types settle under a field that draws neighbours into one domain
       (`graphfm.models.domains`). From there on a cell has its own values, and only the field looks at neighbours.
    4. Such runs, from different starts, vote: ten, and more until both halves of them come to the same, up to sixty.

    The trunk has no part in it yet.

    Parameters
    ----------
    adata
        Cells or spots with coordinates (or a SpatialData or MuData with one table).
    n_domains
        Number of domains; some may end up empty. Without it, the number from which on more tell little more of the
        cells (`graphfm.models.domains.choose_number`): three runs of each number up to 15.
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
    - ``obs["spatial_domain_confidence"]``: mean over the runs of that domain's probability, 0 to 1: how far the runs
      agree, which is no probability that a pathologist would;
    - ``uns["spatial_domain"]``: DataFrame, a row a domain: ``domain``, ``size``, ``fraction``, ``confidence`` (mean),
      ``slides`` (how many it is in);
    - ``uns["spatial_domain_levels"]``: DataFrame, a row a domain, columns ``"1"``, ``"2"``, ...: the domain that it
      belongs to if there shall be so many; ``obs["spatial_domain"].map(uns["spatial_domain_levels"]["3"])``;
    - ``uns["spatial_domain_params"]``: parameters, the strength of the field, and the agreement (adjusted Rand index)
      of the votes of either half of the runs: how much the domains owe to chance.

    Raises
    ------
    KeyError
        `spatial_key`, `library_key` or `layer` does not exist.
    ValueError
        Names of genes are not unique, `n_domains` is below 2 or above half of the cells, a slide has too few cells,
        or fewer than 2 genes vary.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=100)
    >>> graphfm.tl.spatial_domains(adata, n_domains=4, library_key="slide")
    >>> adata.obs["spatial_domain"].nunique()
    4
    """
    adata = io.as_anndata(adata)
    check_key_added(key_added, library_key)
    _check_number(n_domains, adata.n_obs, "n_domains")
    check_unique_genes(adata)
    slides = slices_of(adata, library_key)
    adata = writable(adata, copy=copy)
    neighbors = tissue_neighbors(adata, library_key, spatial_key, n_neighbors)
    order = order_of_names(adata.obs)
    with announced(f"domains of {adata.n_obs:,} cells", 60 * stored_values(adata, layer=layer)):
        values = slice_components(io.expression(adata, layer=layer, kind=kind), slides, NUM_COMPONENTS, seed)
        own, num_types = values[order], min(NUM_TYPES, adata.n_obs // 2)

        def densities(run_seed: int) -> np.ndarray:
            return mixture_densities(own, num_types, seed=run_seed)

        found = _settled(densities, neighborhood_mean(values, neighbors), neighbors, order, n_domains, seed)
    _write(adata, found, slides, key_added, "domain")
    adata.uns[f"{key_added}_params"] = {
        "n_domains": found.probability.shape[1],
        "n_domains_given": n_domains is not None,
        "library_key": library_key or "",
        "spatial_key": spatial_key,
        "layer": layer or "X",
        "kind": kind,
        "n_neighbors": n_neighbors,
        "seed": seed,
        "field_strength": found.strength,
        "agreement": found.agreement,
    }
    return adata if copy else None


def niches(
    adata: AnnData,
    *,
    cell_type_key: str,
    n_niches: int | None = None,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    n_neighbors: int = NUM_NEIGHBORS,
    key_added: str = "niche",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Divide a tissue into niches: regions with a composition of labelled cell types of their own.

    As `spatial_domains`, but the cell types are known, and the first niches are from the square roots of the shares of
    types around each cell (Hellinger's distance). Expression is not read.

    Parameters
    ----------
    adata
        Cells with coordinates (or a SpatialData or MuData with one table).
    cell_type_key
        Column of ``obs`` with a label for every cell.
    n_niches
        Number of niches; chosen if not given, as in `spatial_domains`.
    library_key
        Column of ``obs`` that names the slide of each cell; slides are never connected.
    spatial_key
        Key in ``obsm`` of the coordinates.
    n_neighbors
        Nearest cells that are the neighbourhood of a cell.
    key_added
        Prefix of the results.
    seed
        Random state.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="niche"``:

    - ``obs["niche"]``: categorical, ``"niche 1"`` the largest; ``obs["niche_confidence"]``, 0 to 1;
    - ``obsm["niche_composition"]``: DataFrame ``[cells, types]``, the shares of types among a cell and its neighbours
      (``/`` in a type's name becomes ``|``, since files have no such columns);
    - ``uns["niche"]`` and ``uns["niche_levels"]`` as for domains;
    - ``uns["niche_types"]``: DataFrame, a row a niche, a column a type: its share in the niche;
    - ``uns["niche_params"]``.

    Raises
    ------
    KeyError
        `cell_type_key`, `spatial_key` or `library_key` does not exist.
    ValueError
        A cell has no label, there are fewer than 2 types, `n_niches` is below 2 or above half of the cells, or a slide
        has too few cells.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=100)
    >>> graphfm.tl.niches(adata, cell_type_key="cell_type", n_niches=4, library_key="slide")
    >>> adata.uns["niche_types"].sum(axis=1).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    adata = io.as_anndata(adata)
    check_key_added(key_added, cell_type_key, library_key)
    _check_number(n_niches, adata.n_obs, "n_niches")
    types = _types(adata.obs, cell_type_key)
    slides = slices_of(adata, library_key)
    adata = writable(adata, copy=copy)
    neighbors = tissue_neighbors(adata, library_key, spatial_key, n_neighbors)
    order = order_of_names(adata.obs)
    labelled = types.to_numpy(dtype=np.float64)
    composition = neighborhood_mean(labelled, neighbors)
    known = labelled[order] + OTHER_TYPE
    found = _settled(lambda _: known, _hellinger(composition), neighbors, order, n_niches, seed)
    kept = _write(adata, found, slides, key_added, "niche")
    adata.obsm[f"{key_added}_composition"] = named_columns(composition, adata.obs_names, types.columns)
    adata.uns[f"{key_added}_types"] = named_columns(
        found.shares[kept], pd.Index(adata.uns[key_added]["niche"].to_list()), types.columns
    )
    adata.uns[f"{key_added}_params"] = {
        "cell_type_key": cell_type_key,
        "n_niches": found.probability.shape[1],
        "n_niches_given": n_niches is not None,
        "library_key": library_key or "",
        "spatial_key": spatial_key,
        "n_neighbors": n_neighbors,
        "seed": seed,
        "field_strength": found.strength,
        "agreement": found.agreement,
    }
    return adata if copy else None


def _settled(
    densities: Callable[[int], np.ndarray],
    blurred: np.ndarray,
    neighbors: sp.csr_matrix,
    order: np.ndarray,
    number: int | None,
    seed: int,
) -> Domains:
    """Domains, their number chosen if it is not given; computed in `order`, which that of the densities is."""
    blurred, neighbors = blurred[order], neighbors[order][:, order]
    number = number or max(2, choose_number(densities(seed), blurred, neighbors, seed=seed))
    found = vote_domains(densities, blurred, neighbors, number, seed=seed)
    return replace(found, probability=found.probability[np.argsort(order)])


def _check_number(number: int | None, num_cells: int, name: str) -> None:
    if number is not None and not (isinstance(number, Integral) and 2 <= number <= num_cells // 2):
        raise ValueError(f"{name}={number!r}: pass a whole number from 2 to half of the {num_cells} cells.")


def _types(obs: pd.DataFrame, key: str) -> pd.DataFrame:
    """``[cells, types]``, 1 where a cell is of a type."""
    check_column(obs, key, "cell_type_key", complete=True)
    types = pd.get_dummies(obs[key].astype(str))
    if types.shape[1] < 2:
        raise ValueError(f"adata.obs[{key!r}] has one type only. Niches are told apart by two or more.")
    return types


def _hellinger(composition: np.ndarray) -> np.ndarray:
    """Square roots of shares, by their principal components."""
    from sklearn.decomposition import PCA

    roots = np.sqrt(composition)
    return PCA(min(NUM_COMPONENTS, roots.shape[1] - 1, len(roots) - 1), svd_solver="full").fit_transform(roots)


def _write(adata: AnnData, found: Domains, slides: np.ndarray, key: str, name: str) -> np.ndarray:
    """Labels by size and what is told of them; the numbers of the domains that have cells, the largest first."""
    label = found.probability.argmax(axis=1)
    sizes = np.bincount(label, minlength=found.probability.shape[1])
    order = np.argsort(-sizes, kind="stable")
    number = np.count_nonzero(sizes)
    if number < len(sizes):
        logger.warning("%d of %d %ss have no cell", len(sizes) - number, len(sizes), name)
    names = [f"{name} {rank}" for rank in range(1, number + 1)]
    codes, confidence = np.argsort(order)[label], found.probability.max(axis=1)
    adata.obs[key] = pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))
    adata.obs[f"{key}_confidence"] = confidence
    kept = order[:number]
    levels = nested_levels(found.shares[kept], sizes[kept])
    adata.uns[f"{key}_levels"] = pd.DataFrame(
        np.array(names, dtype=object)[levels], index=names, columns=[str(level) for level in range(1, number + 1)]
    )
    cells = pd.DataFrame({"confidence": confidence, "slide": slides}).groupby(codes)
    adata.uns[key] = pd.DataFrame(
        {
            name: names,
            "size": cells.size(),
            "fraction": cells.size() / len(label),
            "confidence": cells["confidence"].mean(),
            "slides": cells["slide"].nunique(),
        }
    )
    return kept
