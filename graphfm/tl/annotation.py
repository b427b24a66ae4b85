"""Cell types from a reference, or from a few labelled cells."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData

from graphfm import _keys, genes, io
from graphfm._checks import check_column, check_key_added, of_data
from graphfm.data.cell_groups import order_of_names
from graphfm.data.prepare import cell_graph
from graphfm.genes import Organism
from graphfm.io.files import named_columns, writable
from graphfm.io.matrix import Kind, log_normalize, stored_values
from graphfm.memory import announced
from graphfm.models.annotation import Annotation, View, annotate_cells
from graphfm.models.graphfm import GraphFM
from graphfm.models.integration import integrate_components
from graphfm.pp.knn import N_NEIGHBORS, knn_graph, write_components
from graphfm.tl.embedding import last_states

logger = logging.getLogger(__name__)

Part = tuple[AnnData, str | None, Kind, Organism]
"""Cells, where their expression is, what it is, and whose genes."""

MIN_SHARED, MAX_CELLS_A_TYPE, NUM_MARKERS = 10, 300, 10
GENES_PENALTY = 30.0
UNKNOWN = "unknown"


def annotate(
    query: AnnData,
    reference: AnnData | None = None,
    *,
    label_key: str,
    model: GraphFM | str | Path | None = None,
    unknown: float | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    reference_layer: str | None = None,
    reference_kind: Kind | None = None,
    reference_organism: Organism = "auto",
    key_added: str = "annotation",
    seed: int = 0,
    copy: bool = False,
) -> AnnData | None:
    """Give every cell the type of the labelled cells that it is like.

    Three views of a cell vote (`graphfm.models.annotation`): its genes, its principal components, and the carrier of
    the trunk's embedding, in which a cell is what its neighbours are. Logistic regressions on labelled cells, of which
    each type counts the same, are weighted by what they tell of labelled cells that they have not seen. Then each
    cell's neighbours have their say. Components of query and reference are brought together first, as by `integrate`,
    so that neighbours, too, may be of either: what lies between the two, a platform, a donor or a treatment, is
    not to decide what a cell is. Genes are matched by the vocabulary, so that
    old symbols, Ensembl ids and orthologs of mouse and human meet; counts are normalised by those that both sides have.

    Parameters
    ----------
    query
        Cells to annotate (or a SpatialData or MuData with one table).
    reference
        Labelled cells; those without a label are not read, and at most 300 of each type, drawn at random. Without a
        reference the labels are those in `query` itself, for some of its cells: a few of each type will do.
    label_key
        Column of ``obs`` with the types, in the reference if there is one; missing where a cell has none.
    model
        A model, or the path of one; default: the weights in the package.
    unknown
        Call cells ``"unknown"`` that are less like all types than this share of labelled cells of which the regression
        does not know, for instance 0.05. More cells of the query are called so where a batch effect lies between, or
        few cells are labelled. None: every cell gets a type.
    layer, kind, organism
        Where the query's expression is and what it is (`graphfm.io.expression`); whose genes
        (`graphfm.genes.align_genes`).
    reference_layer, reference_kind, reference_organism
        The same of the reference; `layer` and `kind` if not given, ``"X"`` for ``reference.X`` where the query's are in
        a layer.
    key_added
        Prefix of the results.
    seed
        Of all that is drawn.
    copy
        Return a changed copy instead of writing to `query`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="annotation"``:

    - ``obs["annotation"]``: categorical, the type, or ``"unknown"``; a cell with a label keeps it;
    - ``obs["annotation_confidence"]``: probability of that type among those that are known, 0 to 1;
    - ``obs["annotation_familiarity"]``: how much the cell and its neighbours are like any known type, 0 to 1;
    - ``obsm["annotation_probability"]``: DataFrame ``[cells, types]``, rows sum to 1 (``/`` in a type's name
      becomes ``|``, since files have no such columns);
    - ``uns["annotation"]``: DataFrame, a row a type: ``type``, ``labelled`` (cells learned from), ``size``,
      ``fraction``, ``confidence`` (mean), ``markers`` (the ten genes that speak most for it, the strongest first, named
      as in `query`);
    - ``uns["annotation_params"]``: parameters, the views' weights, the threshold of ``"unknown"``.

    Raises
    ------
    KeyError
        `label_key`, `layer` or `reference_layer` does not exist.
    ValueError
        There are fewer than two types, or neither a reference nor a cell without a label, or fewer than 10 genes in
        common, or too few cells for a graph, or the labels are measured numbers, `unknown` is no share, or the
        expression is not what `kind` says.
    FileNotFoundError
        No model at that path.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=600, num_genes=200)
    >>> reference, query = adata[:300].copy(), adata[300:].copy()
    >>> graphfm.tl.annotate(query, reference, label_key="cell_type")
    >>> bool((query.obs["annotation"] == query.obs["cell_type"]).mean() > 0.8)
    True
    """
    query = io.as_anndata(query)
    check_key_added(key_added, label_key)
    if unknown is not None and not 0 < unknown < 1:
        raise ValueError(f"unknown={unknown}: pass a share above 0 and below 1, such as 0.05, or None.")
    if not isinstance(model, GraphFM):
        model = GraphFM.from_pretrained(model)
    given = query if reference is None else io.as_anndata(reference)
    labels = _labels(given, label_key, "query" if reference is None else "reference")
    if reference is None and labels.notna().all():
        raise ValueError(
            f"every cell of query has a label in obs[{label_key!r}], so there is none to annotate. Pass reference=, or "
            "take the labels of some cells away (NaN)."
        )
    query = writable(query, copy=copy)
    parts: list[Part] = [(query, layer, kind, organism)]
    if reference is not None:
        chosen = some_of_each(labels, seed)
        labels = labels.iloc[chosen]
        place = {None: layer, "X": None}.get(reference_layer, reference_layer)
        parts.insert(0, (given[chosen], place, reference_kind or kind, reference_organism))
    for name, (cells, *_) in zip(("query", "reference"), parts[::-1], strict=False):
        if cells.n_obs < 3:
            raise ValueError(f"{name} has {cells.n_obs} cells to read; a graph of neighbours needs at least 3.")
    types = sorted(set(labels.dropna()))
    with announced(
        f"types of {query.n_obs:,} cells", 60 * sum(stored_values(part[0], layer=part[1]) for part in parts)
    ):
        joint = joint_cells(parts, model, seed)
        codes = np.full(joint.n_obs, -1)
        codes[: len(labels)] = pd.Categorical(labels.iloc[order_of_names(labels)], categories=types).codes
        graph = joint.obsp[_keys.CONNECTIVITIES]
        found = annotate_cells(views_of(joint), codes, graph, unknown=unknown, seed=seed)
    mine = joint.n_obs - query.n_obs + np.argsort(order_of_names(query.obs))
    _write(query, joint, found, codes, types, key_added, mine, called=unknown is not None)
    query.uns[f"{key_added}_params"] = {
        "label_key": label_key,
        "reference": reference is not None,
        "shared_genes": joint.n_vars,
        "weights": dict(zip(("genes", "components", "carrier"), found.weights.tolist(), strict=True)),
        "unknown": unknown or 0.0,
        "threshold": found.threshold,
        "layer": layer or "X",
        "kind": kind,
        "seed": seed,
    }
    return query if copy else None


def _labels(adata: AnnData, key: str, name: str) -> pd.Series:
    check_column(adata.obs, key, "label_key", name=name)
    if pd.api.types.is_float_dtype(adata.obs[key]) and (adata.obs[key].dropna() % 1).any():
        raise ValueError(f"label_key={key!r}: {name}.obs holds measured numbers there, not names of types.")
    whole = pd.api.types.is_float_dtype(adata.obs[key])  # whole numbers, where some are missing
    labels = adata.obs[key].astype("Int64" if whole else object).astype(object)
    labels = labels.where(labels.isna(), labels.astype(str))
    if labels.nunique() < 2:
        raise ValueError(
            f"{name}.obs[{key!r}] names {labels.nunique()} types. At least two are needed to tell them apart."
        )
    return labels


def some_of_each(labels: pd.Series, seed: int) -> np.ndarray:
    """Places of labelled cells, at most 300 of each type, in order.

    Parameters
    ----------
    labels
        ``[cells]``, missing where a cell has none.
    seed
        Of the draw.
    """
    place = pd.Series(order_of_names(labels)[np.random.default_rng(seed).permutation(len(labels))])
    known = place[labels.notna().to_numpy()[place]]
    drawn = known.groupby(labels.to_numpy()[known]).head(MAX_CELLS_A_TYPE)
    return np.sort(drawn.to_numpy())


def joint_cells(parts: list[Part], model: GraphFM, seed: int) -> AnnData:
    """Cells of all parts in one space, brought together where there are two, those of the first part first.

    Those of a part come in the order of their names: what is drawn is not to depend on that of the file.

    Parameters
    ----------
    parts
        Data sets; they are not changed.
    model
        The trunk.
    seed
        Of components and graphs.

    Returns
    -------
    Log-normalised expression of the genes that all parts have, matched by the vocabulary, named as in the last part;
    ``obsm["X_pca"]`` and ``varm["PCs"]`` of all cells together, ``obsm["X_integrated"]`` moved by
    `integrate_components` where there is more than one part, ``obsp["connectivities"]`` of these, ``obsm["X_graphfm"]``
    by `trunk_states`.

    Raises
    ------
    ValueError
        Fewer than 10 genes in common, or too few cells for a graph.
    """
    joint = _joined(parts)
    write_components(joint, kind="log1p", seed=seed)
    moved = joint.obsm[_keys.X_PCA]
    if len(parts) > 1:
        part = np.repeat(np.arange(len(parts)), [adata.n_obs for adata, *_ in parts])
        moved = integrate_components(moved, part, seed=seed).values
    joint.obsm[_keys.X_INTEGRATED] = (moved - moved.mean(axis=0)).astype(np.float32)
    knn_graph(joint, n_neighbors=min(N_NEIGHBORS, joint.n_obs - 1), use_rep=_keys.X_INTEGRATED, seed=seed)
    joint.obsm[_keys.X_GRAPHFM] = trunk_states(joint, model)
    return joint


def trunk_states(joint: AnnData, model: GraphFM) -> np.ndarray:
    """Carrier and reader of ``obsm["X_integrated"]`` on the graph that is in ``obsp``.

    Parameters
    ----------
    joint
        Of `joint_cells`.
    model
        The trunk.
    """
    cells = cell_graph(joint, relations=("knn",), kind="log1p", with_expression=False)
    return last_states(model, replace(cells, scores=torch.from_numpy(joint.obsm[_keys.X_INTEGRATED])))


def _joined(parts: list[Part]) -> AnnData:
    shells = []
    for number, (adata, layer, kind, organism) in enumerate(parts, start=1):
        with of_data("query" if number == len(parts) else "reference"):
            shell = genes.merge_genes(adata, layer=layer, kind=kind, organism=organism)
        shells.append((shell, pd.Index(genes.gene_keys(shell))))
    own, keys = shells[-1]  # whose names and order the genes keep
    common = [key for key in keys if all(key in others for _, others in shells)]
    if len(common) < MIN_SHARED:
        names = " and ".join(str(list(part[0].var_names[:3])) for part in parts)
        raise ValueError(
            f"reference and query have {len(common)} genes in common; at least {MIN_SHARED} are needed. Are both genes "
            f"of human or mouse, or named alike ({names})?"
        )
    # by the total of the common genes: a panel's total is not that of a whole transcriptome
    kinds = [kind for _, _, kind, _ in parts]
    shared = [shell[order_of_names(shell.obs), keys.get_indexer(common)].copy() for shell, keys in shells]
    values = _alike(shared, kinds)
    joint = AnnData(sp.vstack(values, format="csr"), var=shared[-1].var[[_keys.GENE_ROW]])
    joint.uns[_keys.GENES] = own.uns[_keys.GENES]
    return joint


def _alike(shells: list[AnnData], kinds: list[Kind]) -> list[sp.csr_matrix]:
    """Log-normalised expression; of cells brought to the same total, which is that of the last part with counts."""
    with_counts = [shell for shell, kind in zip(shells, kinds, strict=True) if kind == "counts"]
    target = io.typical_sum(with_counts[-1]) if with_counts else None
    values = [io.expression(shell, kind=kind, target_sum=target) for shell, kind in zip(shells, kinds, strict=True)]
    return [
        log_normalize(logged.expm1(), target) if target and kind == "log1p" else logged
        for logged, kind in zip(values, kinds, strict=True)
    ]


def views_of(joint: AnnData) -> list[View]:
    """Genes, components and carrier of each cell, in units that do not depend on the number of genes.

    Parameters
    ----------
    joint
        Made by `joint_cells`.
    """
    mean = np.asarray(joint.X.mean(axis=0, dtype=np.float64)).ravel()
    total = float(joint.X.multiply(joint.X).mean(axis=0).sum() - mean @ mean)
    scores, carrier = joint.obsm[_keys.X_INTEGRATED], np.hsplit(joint.obsm[_keys.X_GRAPHFM], 2)[0]
    return [
        View(joint.X / np.float32(np.sqrt(max(total, 1e-12))), GENES_PENALTY),
        View(scores / max(scores[:, 0].std(), 1e-12)),
        View(carrier / max(carrier.std(axis=0).max(), 1e-12)),
    ]


def _write(
    query: AnnData,
    joint: AnnData,
    found: Annotation,
    codes: np.ndarray,
    types: list[str],
    key: str,
    mine: np.ndarray,
    *,
    called: bool,
) -> None:
    """Results of the query's cells, whose places among all are `mine`."""
    probability, familiar = found.probability[mine], found.familiar[mine]
    label = probability.argmax(axis=1)
    names = pd.Index([*types, UNKNOWN] if called and UNKNOWN not in types else types, dtype=object)
    strange = (familiar < found.threshold) & (codes[mine] < 0)
    label[strange] = names.get_indexer([UNKNOWN])[0]
    query.obs[key] = pd.Categorical.from_codes(label, categories=names)
    query.obs[f"{key}_confidence"] = probability.max(axis=1)
    query.obs[f"{key}_familiarity"] = familiar
    query.obsm[f"{key}_probability"] = named_columns(probability, query.obs_names, types)
    size = query.obs[key].value_counts().reindex(types).to_numpy()
    confidence = query.obs.groupby(key, observed=False)[f"{key}_confidence"].mean().reindex(types).fillna(0.0)
    strongest = np.argsort(-found.coefficients, axis=1, kind="stable")[:, :NUM_MARKERS]
    query.uns[key] = pd.DataFrame(
        {
            "type": types,
            "labelled": np.bincount(codes[codes >= 0], minlength=len(types)),
            "size": size,
            "fraction": size / query.n_obs,
            "confidence": confidence.to_numpy(),
            "markers": [", ".join(joint.var_names[row]) for row in strongest],
        }
    )
