"""Genes that were not measured in a tissue, from cells in which they were."""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_key_added, check_unique_genes, of_data
from graphfm.data.cell_groups import order_of_names
from graphfm.io.files import writable
from graphfm.io.matrix import MAX_TARGET_SUM, Kind, stored_values
from graphfm.memory import announced
from graphfm.metrics.imputation import gene_scores
from graphfm.models.imputation import fit_genes
from graphfm.tl.slices import neighborhood_mean, slice_components, slices_of, tissue_neighbors

logger = logging.getLogger(__name__)

NUM_COMPONENTS, NUM_NEIGHBORS, FOLDS, MIN_SHARED = 15, 6, 5, 10
GENE_CHUNK = 512


def impute(
    adata: AnnData,
    reference: AnnData,
    *,
    genes: Sequence[str] | None = None,
    library_key: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    layer: str | None = None,
    kind: Kind = "counts",
    key_added: str = "imputed",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Predict genes that `adata` lacks, from a reference in which they were measured.

    The genes that both have are standardised in each slice and in the reference; 15 principal components of them all,
    of the cell and of the mean over it and its 6 nearest cells where both have coordinates, predict every gene by ridge
    regression (`graphfm.models.imputation`). What is predicted is smooth: it ranks cells, and has less variance than
    what would have been measured.

    Parameters
    ----------
    adata
        Cells or spots (or a SpatialData or MuData with one table).
    reference
        Cells of such a tissue: another slice, dissociated cells, or the cells of the same slice that have the genes.
        Read from the same `layer` and of the same `kind`.
    genes
        Genes of the reference; all that `adata` lacks if not given. What `adata` itself has of them is not used.
    library_key
        Column of ``obs``, in both, that names the slice of each cell; slices are standardised one by one.
    spatial_key
        Key in ``obsm`` of the coordinates; used where both have it.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.
    key_added
        Prefix of the results.
    seed
        Of the solver and of the folds.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="imputed"``:

    - ``obsm["imputed"]``: float32 ``[cells, genes]``, log-normalised to totals of 10^4, or as the reference where that
      holds logarithms; its columns are the rows of
    - ``uns["imputed"]``: DataFrame: ``gene``; ``confidence``, rank correlation with what was measured in cells of the
      reference that were held out (five folds; 0 for a gene that does not vary); ``rmse`` of these in standard
      deviations of the gene;
    - ``uns["imputed_params"]``.

    Raises
    ------
    KeyError
        `library_key` or `layer` does not exist, or the reference lacks one of `genes`.
    ValueError
        There are fewer than 10 genes to predict from, no gene to predict, or the reference has fewer than 10 cells.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=100)
    >>> panel = adata[:300, :80].copy()
    >>> graphfm.tl.impute(panel, adata[300:])
    >>> panel.obsm["imputed"].shape
    (300, 20)
    """
    adata, reference = io.as_anndata(adata), io.as_anndata(reference)
    check_key_added(key_added)
    for data in (adata, reference):
        check_unique_genes(data)
    wanted = _wanted(adata, reference, genes)
    shared = adata.var_names.intersection(reference.var_names).difference(wanted, sort=False)
    if len(shared) < MIN_SHARED:
        raise ValueError(
            f"adata and reference share {len(shared)} genes that are not to be predicted; at least {MIN_SHARED} are "
            f"needed. Are both named alike (adata: {list(adata.var_names[:3])}, reference: "
            f"{list(reference.var_names[:3])})?"
        )
    if reference.n_obs < 2 * FOLDS:
        raise ValueError(f"reference has {reference.n_obs} cells; at least {2 * FOLDS} are needed.")
    slices = [slices_of(reference, library_key, "reference"), slices_of(adata, library_key)]
    adata = writable(adata, copy=copy)
    parts = (reference, adata)
    tissue = all(spatial_key in part.obsm for part in parts)
    stored = sum(stored_values(part, layer=layer) for part in parts)
    with announced(f"{len(wanted):,} genes of {adata.n_obs:,} cells", 60 * stored + 4 * adata.n_obs * len(wanted)):
        # by the total of the shared genes: that of all would tell of those that are to be predicted
        logged = []
        with of_data("adata"):
            target = io.typical_sum(adata[:, shared], layer=layer, kind=kind)
        for name, part in zip(("reference", "adata"), parts, strict=True):
            with of_data(name):
                logged.append(io.expression(part[:, shared], layer=layer, kind=kind, target_sum=target))
        features = _features(parts, logged, slices, library_key, spatial_key if tissue else None, seed)
        known = features[: reference.n_obs]
        columns = reference.var_names.get_indexer(wanted)
        with of_data("reference"):
            # logarithms of small totals are nearly counts, whose mean tells of the few cells with the most
            values = io.expression(reference, layer=layer, kind=kind, target_sum=MAX_TARGET_SUM)
        truth = values[:, columns].tocsr()
        model = fit_genes(known, truth)
        predicted = np.empty((adata.n_obs, len(wanted)), dtype=np.float32)
        for chunk in range(0, adata.n_obs, 4096):
            predicted[chunk : chunk + 4096] = model.predict(features[reference.n_obs :][chunk : chunk + 4096])
        scores = _held_out(known, truth, order_of_names(reference.obs), seed)
    # no table, for whose columns' names an .h5ad file has no room if there are thousands
    adata.obsm[key_added] = predicted
    adata.uns[key_added] = pd.DataFrame({"gene": wanted, "confidence": scores["spearman"], "rmse": scores["rmse"]})
    adata.uns[f"{key_added}_params"] = {
        "shared_genes": len(shared),
        "reference_cells": reference.n_obs,
        "spatial": tissue,
        "library_key": library_key or "",
        "layer": layer or "X",
        "kind": kind,
        "seed": seed,
        "penalty": model.penalty,
    }
    return adata if copy else None


def _wanted(adata: AnnData, reference: AnnData, genes: Sequence[str] | None) -> pd.Index:
    if genes is None:
        wanted = reference.var_names.difference(adata.var_names, sort=False)
        if wanted.empty:
            raise ValueError("reference has no gene that adata lacks. Name the genes to predict by genes=.")
        return wanted
    if isinstance(genes, str):
        raise TypeError(f"genes={genes!r} is a string: pass a list of names.")
    wanted = pd.Index(dict.fromkeys(genes))
    if wanted.empty:
        raise ValueError("genes is empty: name some, or leave it out for all that adata lacks.")
    missing = wanted.difference(reference.var_names)
    if len(missing):
        raise KeyError(f"reference lacks {len(missing)} of the {len(wanted)} genes (first: {list(missing[:5])}).")
    return wanted


def _features(
    parts: tuple[AnnData, AnnData],
    logged: list[sp.csr_matrix],
    slices: list[np.ndarray],
    library_key: str | None,
    spatial_key: str | None,
    seed: int,
) -> np.ndarray:
    """``[cells, features]``, of the reference first: components, and their means over nearest cells, of unit scale."""
    first, second = slices
    values = slice_components(
        sp.vstack(logged, format="csr"), np.concatenate([first, second + first.max() + 1]), NUM_COMPONENTS, seed
    )
    values /= values[:, 0].std()
    if spatial_key is None:
        return values
    graphs = [tissue_neighbors(part, library_key, spatial_key, NUM_NEIGHBORS, "neighbours") for part in parts]
    return np.hstack([values, neighborhood_mean(values, sp.csr_matrix(sp.block_diag(graphs)))])


def _held_out(features: np.ndarray, truth: sp.csr_matrix, order: np.ndarray, seed: int) -> pd.DataFrame:
    """Scores of genes in reference cells that the regression has not seen; a few hundred genes at a time."""
    fold = np.empty(len(features), dtype=np.int64)
    fold[order] = np.random.default_rng(seed).permutation(np.arange(len(features)) % FOLDS)
    models = [fit_genes(features[fold != part], truth[fold != part]) for part in range(FOLDS)]
    scores = []
    for start in range(0, truth.shape[1], GENE_CHUNK):
        part = slice(start, start + GENE_CHUNK)
        measured = truth[:, part].toarray()
        predicted = np.empty_like(measured)
        for number, model in enumerate(models):
            held = fold == number
            predicted[held] = model.predict(features[held], part)
        scores.append(gene_scores(predicted, measured))
    table = pd.concat(scores, ignore_index=True)
    return table.assign(spearman=table["spearman"].fillna(0.0), rmse=table["rmse"].fillna(1.0))
