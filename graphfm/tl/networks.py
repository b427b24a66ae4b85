"""Gene-regulatory networks: a ranked, signed table of edges."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from torch import Tensor
from torch.nn.functional import normalize

from graphfm import _keys, genes, io
from graphfm._checks import check_device, check_unique_genes
from graphfm._vocabulary import has_rows, vocabulary
from graphfm.data.profiles import NUM_COMPONENTS, gene_profiles, gene_statistics, shuffled
from graphfm.io.files import writable
from graphfm.io.matrix import Kind, stored_values
from graphfm.memory import announced
from graphfm.models.knowledge import RegulatoryKnowledge
from graphfm.nn.context import context_scores, similar_genes
from graphfm.nn.neighborhood import SparseRows
from graphfm.pp.regulatory import prior_edges, regulators
from graphfm.tl.regulons import regulon_activity

logger = logging.getLogger(__name__)


def infer_grn(
    adata: AnnData,
    *,
    tfs: Sequence[str] | None = None,
    mode: Literal["unsupervised", "prior", "zero_shot", "fine_tune"] = "unsupervised",
    prior: pd.DataFrame | None = None,
    known: pd.DataFrame | None = None,
    model: RegulatoryKnowledge | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
    max_edges: int | None = 1_000_000,
    regulon_size: int = 50,
    min_confidence: float = 0.5,
    key_added: str = _keys.GRN,
    seed: int = 0,
    device: str = "cpu",
    copy: bool = False,
) -> AnnData | None:
    """Which transcription factor regulates which gene, ranked, with sign and confidence.

    Parameters
    ----------
    adata
        Cells x genes (or a SpatialData or MuData with one table).
    tfs
        Names of the transcription factors; default: ``var["is_tf"]``, else those that the vocabulary knows.
    mode
        ``"unsupervised"``: from expression alone, each transcription factor with each gene; see
        `graphfm.nn.context.context_scores`. ``"prior"``: only the edges of `prior`, their weights multiplied by
        that score, so that what a data set does not support goes down. ``"zero_shot"``: `model` reads that score
        beside what is known of the genes from other cells; see `graphfm.models.knowledge`. ``"fine_tune"``: networks
        learn from the edges of `known`, and from expression, which other pairs are like them; see
        `graphfm.models.regulation`.
    prior, known
        Known regulation, for these modes: columns ``source`` (or ``tf``), ``target`` and, optionally, ``sign`` (+1, -1,
        0 for unknown) and ``weight``, which is positive where there is a ``sign``, and without one tells it where some
        are negative; `known` reads no more of weights than that. Names may be symbols or Ensembl ids, also of the
        other species. Edges that you want to test the result against must not be in it.
    model
        What is known of the genes from other cells. For mode ``"zero_shot"``, by default the pre-trained one of the
        package, which has seen the networks that its model card names; see `pretrain_grn` for others. In mode
        ``"fine_tune"`` networks read it as well, if it is given: `RegulatoryKnowledge.from_pretrained()` is the
        package's.
    layer, kind
        Where the expression is, and what it is: see `graphfm.io.expression`.
    max_edges
        Strongest edges that are kept; None: all that score above 0.
    regulon_size
        Strongest targets of a transcription factor that make its regulon.
    min_confidence
        Least confidence of an edge in a regulon.
    key_added
        Key of the result.
    seed
        Of the data that confidence is measured against; in mode ``"fine_tune"`` also of the networks.
    device
        Where to compute.
    copy
        Return a changed copy instead of writing to `adata`.

    Returns
    -------
    None, or the copy. Written, with ``key_added="grn"``:

    - ``uns["grn"]``: DataFrame, strongest first: ``tf``, ``target`` (names), ``score`` (above 0, of no unit; in modes
      ``"zero_shot"`` and ``"fine_tune"`` the probability of an edge at the density of what was learned from),
      ``sign`` (+1 the target rises with the factor, -1 it falls; that of `prior` or `known` where they have one; with
      ten known edges of either sign, ``"fine_tune"`` learns the others'), ``confidence`` (one less the expected share
      of pairs that are as strong or stronger by expression in data in which each gene's values are dealt to the cells
      at random: that the two are associated here at all, not that one causes the other), ``regulon`` (bool). Genes
      that no cell expresses have no edges;
    - ``varp["grn"]``: float32 CSR ``[n_vars, n_vars]``, score times sign, row = regulator, column = target;
    - ``obsm["grn_activity"]``: DataFrame, cells x transcription factors: mean standardised expression of the regulon,
      weighted by score and sign; see `regulon_activity`;
    - ``uns["grn_params"]``: parameters.

    Raises
    ------
    ValueError
        Names of genes are not unique, no transcription factor is among them, there are fewer than 3 cells or 2 genes
        that vary, an argument is out of range, the prior knows none of the genes, or the vocabulary none of the
        transcription factors that ``"zero_shot"`` is asked for.
    KeyError
        The prior lacks a column, or the layer does not exist.

    Examples
    --------
    >>> import graphfm
    >>> adata = graphfm.datasets.toy(num_cells=300, num_genes=100)
    >>> graphfm.tl.infer_grn(adata)
    >>> adata.uns["grn"].columns.tolist()
    ['tf', 'target', 'score', 'sign', 'confidence', 'regulon']
    """
    adata = io.as_anndata(adata)
    given = prior if mode == "prior" else known
    _check(mode, prior, known, model, max_edges, regulon_size, min_confidence)
    check_device(device)
    check_unique_genes(adata)
    adata = writable(adata, copy=copy)
    if not has_rows(adata.var):
        _align(adata, layer)
    network, unknown = (
        (None, []) if given is None else prior_edges(given, adata.var, "prior" if mode == "prior" else "known")
    )
    factors = _factors(adata, tfs, network, only=mode == "prior")
    rows = _rows_of(adata)
    if mode == "zero_shot":
        model = model or RegulatoryKnowledge.from_pretrained()
    if model is not None:
        _check_model(model, rows[factors], mode)
    needed = 4 * adata.n_vars * (8 * len(factors) + 6 * NUM_COMPONENTS) + 24 * stored_values(adata, layer=layer)
    with announced(f"scoring {len(factors):,} transcription factors with {adata.n_vars:,} genes", needed):
        # in the order of their names, so that the genes' own order does not show, not even in the last bit
        order = np.argsort(adata.var_names.astype(str), kind="stable")
        place = np.argsort(order)
        expression = io.expression(adata, layer=layer, kind=kind)[:, order]
        expression.sort_indices()
        genes_of = _Genes(
            names=adata.var_names[order].to_numpy(dtype=str),
            expression=expression,
            factors=np.sort(place[factors]),
            network=None
            if network is None
            else network.assign(row=place[network["row"]], column=place[network["column"]]),
            rows=torch.from_numpy(rows[order]),
        )
        edges = _edges(*_scores(genes_of, mode, model, seed, device), genes_of.factors, max_edges)
    edges["row"], edges["column"] = order[edges["row"]], order[edges["column"]]
    edges["regulon"] = _in_regulon(edges, regulon_size, min_confidence)
    _write(adata, edges, key_added)
    adata.uns[f"{key_added}_params"] = {
        "mode": mode,
        "layer": layer or "X",
        "kind": kind,
        "n_tfs": len(factors),
        "regulon_size": regulon_size,
        "min_confidence": min_confidence,
        "seed": seed,
        "unknown_genes": np.asarray(unknown, dtype=str),
    }
    regulon_activity(adata, key=key_added, layer=layer, kind=kind)
    return adata if copy else None


def _write(adata: AnnData, edges: pd.DataFrame, key: str) -> None:
    """The edges as a table of names, and as a matrix of signed scores."""
    place = (edges["row"], edges["column"])
    signed = (edges["score"] * edges["sign"]).to_numpy(dtype=np.float32)
    adata.varp[key] = sp.csr_matrix((signed, place), shape=(adata.n_vars, adata.n_vars))
    named = {
        new: pd.Categorical.from_codes(edges[old], adata.var_names)
        for new, old in (("tf", "row"), ("target", "column"))
    }
    table = edges.drop(columns=["row", "column"]).assign(**named)
    table["tf"], table["target"] = (table[name].cat.remove_unused_categories() for name in ("tf", "target"))
    adata.uns[key] = table[["tf", "target", "score", "sign", "confidence", "regulon"]]


def _align(adata: AnnData, layer: str | None) -> None:
    """Align the genes where the vocabulary knows them; simulated ones do without, if the regulators are named."""
    try:
        logger.info("%s", genes.align_genes(adata, layer=layer))
    except ValueError as error:
        logger.info("genes are taken by their names alone: %s", error)


def _check(
    mode: str,
    prior: pd.DataFrame | None,
    known: pd.DataFrame | None,
    model: RegulatoryKnowledge | None,
    max_edges: int | None,
    regulon_size: int,
    min_confidence: float,
) -> None:
    if mode not in ("unsupervised", "prior", "zero_shot", "fine_tune"):
        raise ValueError(f"mode={mode!r} is unknown. Use 'unsupervised', 'prior', 'zero_shot' or 'fine_tune'.")
    for name, given, readers in (
        ("prior", prior, ("prior",)),
        ("known", known, ("fine_tune",)),
        ("model", model, ("zero_shot", "fine_tune")),
    ):
        if mode in readers and given is None and name != "model":
            raise ValueError(f"mode={mode!r} needs {name}=, a table of known regulation.")
        if given is not None and mode not in readers:
            raise ValueError(f"mode={mode!r} takes no {name}=. Leave it out, or choose the mode that reads it.")
    for name, value in (("max_edges", 1 if max_edges is None else max_edges), ("regulon_size", regulon_size)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number, at least 1.")
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"min_confidence={min_confidence} must be between 0 and 1.")


def _factors(adata: AnnData, tfs: Sequence[str] | None, network: pd.DataFrame | None, *, only: bool) -> np.ndarray:
    """Rows of the regulators: those asked for or known as such, and those of the network, or these alone."""
    sources = np.zeros(0, dtype=np.int64) if network is None else network["row"].unique()
    if only:
        factors = np.intersect1d(sources, regulators(adata, tfs)[0]) if tfs is not None else np.sort(sources)
        if not len(factors):
            raise ValueError("None of the tfs is a source in prior. Pass other tfs=, or none.")
        return factors
    factors = np.union1d(regulators(adata, tfs)[0], sources)
    if not len(factors):
        raise ValueError(
            f"None of the {adata.n_vars} genes is known as a transcription factor (first: "
            f"{', '.join(map(str, adata.var_names[:3]))}). Pass their names as tfs=, or set adata.var['is_tf']."
        )
    return factors


def _check_model(model: RegulatoryKnowledge, factors: np.ndarray, mode: str) -> None:
    """Whether the model belongs to this vocabulary, and the vocabulary knows some of the transcription factors."""
    if not isinstance(model, RegulatoryKnowledge):
        raise TypeError(
            f"model must be a RegulatoryKnowledge, got {type(model).__name__}. Load a file by "
            "graphfm.models.knowledge.RegulatoryKnowledge.from_pretrained(path)."
        )
    if model.vocabulary != vocabulary().version:
        raise ValueError(
            f"model belongs to version {model.vocabulary} of the vocabulary, this is {vocabulary().version}. "
            "Train it again: graphfm.tl.pretrain_grn."
        )
    if not (factors >= 0).any():
        raise ValueError(
            f"model knows none of the {len(factors)} transcription factors. Name genes by symbols or Ensembl ids of "
            f"human or mouse, or {'use another mode' if mode == 'zero_shot' else 'leave model= out'}."
        )


def _rows_of(adata: AnnData) -> np.ndarray:
    """Rows of the vocabulary, -1 outside."""
    known = has_rows(adata.var)
    return adata.var[_keys.GENE_ROW].to_numpy(dtype=np.int64) if known else np.full(adata.n_vars, -1)


@dataclass(frozen=True, eq=False)
class _Genes:
    """Genes of a data set, their regulators, a network among them that is known, and their rows of the vocabulary."""

    names: np.ndarray
    expression: sp.csr_matrix
    factors: np.ndarray
    network: pd.DataFrame | None
    rows: Tensor


def _scores(
    data: _Genes, mode: str, model: RegulatoryKnowledge | None, seed: int, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, sign and confidence of every pair, ``[t, n]``; 0 where nothing is expressed that could rise or fall."""
    profiles = torch.from_numpy(gene_profiles(data.expression, seed=seed)).to(device)
    rows, direction = torch.from_numpy(data.factors).to(device), normalize(profiles, dim=1)
    sign = (direction[rows] @ direction.T).sign()
    graph, expressed = similar_genes(profiles), sign != 0
    score = context_scores(profiles, rows, graph=graph)
    null = gene_profiles(shuffled(data.expression, seed), seed=seed)
    confidence = _confidence(score, context_scores(torch.from_numpy(null).to(device), rows))
    if mode == "zero_shot":
        score = model.probability(data.rows[data.factors], data.rows, score)
    elif mode == "fine_tune":
        score = _learned(data, profiles, graph, score, sign, model, seed)
    if data.network is not None:
        weight, given = (
            torch.from_numpy(_matrix(data, data.network[column])[data.factors].toarray()).to(device)
            for column in ("weight", "sign")
        )
        sign = torch.where(given != 0, given, sign)
        score = score * weight.abs() if mode == "prior" else score
    return score * expressed, sign, confidence


def _matrix(data: _Genes, values: pd.Series) -> sp.csr_matrix:
    """One value an edge of the network that is known, ``[n, n]``."""
    size = len(data.names)
    return sp.csr_matrix((values.astype(np.float32), (data.network["row"], data.network["column"])), shape=(size, size))


def _learned(
    data: _Genes,
    profiles: Tensor,
    graph: SparseRows,
    from_expression: Tensor,
    sign: Tensor,
    model: RegulatoryKnowledge | None,
    seed: int,
) -> Tensor:
    """Probabilities of edges; what is learned of their signs replaces those of the correlations."""
    from graphfm.tl.regulation import UNKNOWN_SIGN, learned_scores
    from graphfm.train.regulation import RegulationConfig

    known = _matrix(data, data.network["sign"].replace(0, UNKNOWN_SIGN))
    statistics, config = gene_statistics(data.expression), RegulationConfig()
    read = None if model is None else partial(model.probability, data.rows[data.factors], data.rows)
    score, positive = learned_scores(
        data.names, profiles, graph, from_expression, statistics, data.factors, known, read, config=config, seed=seed
    )
    if np.isfinite(positive).all():
        sign.copy_(torch.from_numpy(np.where(positive > 0.5, 1, -1)))
    return torch.from_numpy(score).float().to(profiles.device)


def _edges(score: Tensor, sign: Tensor, confidence: Tensor, factors: np.ndarray, limit: int | None) -> pd.DataFrame:
    """The strongest pairs, ``row`` and ``column`` their genes; ties by row, then column."""
    score[torch.arange(len(factors)), torch.from_numpy(factors)] = 0
    chosen = _strongest(score.flatten(), limit)
    row, column = chosen // score.shape[1], chosen % score.shape[1]
    columns = {
        "row": torch.from_numpy(factors).to(row.device)[row],
        "column": column,
        "score": score[row, column],
        "sign": sign[row, column].to(torch.int8),
        "confidence": confidence[row, column],
    }
    return pd.DataFrame({name: values.numpy(force=True) for name, values in columns.items()})


def _strongest(score: Tensor, limit: int | None) -> Tensor:
    """Places of the largest positive values, in order; ties in the order of places."""
    positive = torch.nonzero(score > 0).squeeze(1)
    if limit is not None and limit < len(positive):
        bound = score[positive].topk(limit).values[-1]
        positive = positive[score[positive] >= bound]
    return positive[torch.argsort(score[positive], descending=True, stable=True)][:limit]


def _confidence(score: Tensor, null: Tensor) -> Tensor:
    """One less the false discovery rate of each score, made monotone."""
    ordered, order = score.flatten().sort()
    above = torch.arange(len(ordered), 0, -1, device=score.device)
    # ties share the rank of the first of them
    above = above[torch.searchsorted(ordered, ordered)]
    false = null.numel() - torch.searchsorted(null.flatten().sort().values, ordered)
    rate = torch.cummin((false / above).clamp(max=1), dim=0).values
    return torch.empty_like(ordered).index_copy_(0, order, 1 - rate.float()).view_as(score)


def _in_regulon(edges: pd.DataFrame, size: int, min_confidence: float) -> np.ndarray:
    """Whether an edge is among the strongest of its regulator; edges come strongest first."""
    sure = edges["confidence"] >= min_confidence
    rank = edges[sure].groupby("row").cumcount()
    return sure & (rank.reindex(edges.index) < size)
