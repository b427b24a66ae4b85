"""Pre-training on known networks, for networks of cells that were never seen."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from graphfm import _keys, io
from graphfm._checks import check_unique_genes, of_data
from graphfm._vocabulary import has_rows, match, vocabulary
from graphfm.data.profiles import gene_profiles
from graphfm.io.matrix import Kind
from graphfm.models.knowledge import GeneFactors, KnowledgeConfig, KnowledgeHead, RegulatoryKnowledge
from graphfm.nn.context import context_scores
from graphfm.pp.regulatory import source_column
from graphfm.train.knowledge import Episode, fit_knowledge

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _DataSet:
    """Rows of the vocabulary of its genes and regulators (-1 outside), its context scores, its known networks."""

    group: str
    genes: np.ndarray
    tfs: np.ndarray
    context: torch.Tensor
    networks: dict[str, np.ndarray]


def pretrain_grn(
    corpus: Mapping[str, AnnData],
    *,
    priors: Sequence[pd.DataFrame] = (),
    groups: Mapping[str, str] | None = None,
    unseen: Sequence[str] = (),
    untouched: bool = False,
    kind: Kind | Mapping[str, Kind] = "counts",
    config: KnowledgeConfig | None = None,
    seed: int = 0,
) -> RegulatoryKnowledge:
    """Learn from known networks of some data sets what networks of others look like.

    All known edges make one graph, from which each gene gets its factors (`GeneFactors`). A head learns to read them
    beside expression: for each data set in turn, the networks of its group and all edges between two of its genes are
    taken out of the graph, and are asked for.

    Parameters
    ----------
    corpus
        Data sets with known networks, by name: ``uns["grn_truth"]``, DataFrames by kind of network with columns ``tf``
        and ``target``, and ``uns["tfs"]``, names of the transcription factors.
    priors
        Further known regulation, see `infer_grn`.
    groups
        Group of each data set (its cell type); default: each is its own.
    unseen
        Names of genes; edges between two of them are neither used nor asked for.
    untouched
        Neither are edges with one of them.
    kind
        What the expression of each data set is, see `graphfm.io.expression`.
    config
        Sizes and training.
    seed
        Of all that is drawn.

    Returns
    -------
    RegulatoryKnowledge
        For ``infer_grn(mode="zero_shot", model=)``; it has ``save_pretrained(path)``.

    Raises
    ------
    ValueError, KeyError
        A data set has no network of the kinds in ``config.networks``, or lacks what it needs; nothing is left to learn
        from; none of the unseen genes is known; a data set has no group.
    """
    config, groups = config or KnowledgeConfig(), groups or {name: name for name in corpus}
    if missing := set(corpus) - set(groups):
        raise ValueError(f"groups lacks {sorted(missing)}. Name the group of every data set, or leave groups out.")
    kinds = kind if isinstance(kind, Mapping) else dict.fromkeys(corpus, kind)
    data = [_read(name, adata, groups[name], kinds[name], config, seed) for name, adata in corpus.items()]
    hidden = _hidden(unseen)
    parts = [_pairs(table) for table in priors]
    prior = np.unique(np.concatenate([*parts, np.zeros((0, 2), dtype=np.int64)]), axis=0)

    def known(group: str | None = None, genes: np.ndarray | None = None) -> np.ndarray:
        parts = [network for d in data if d.group != group for network in d.networks.values()]
        edges = np.unique(np.concatenate([prior, *parts]), axis=0)
        edges = edges[(edges[:, 0] != edges[:, 1]) & ~_within(edges, hidden, untouched)]
        edges = edges if genes is None else edges[~_within(edges, genes)]
        if not len(edges):
            raise ValueError("No known edge is left to learn from. Pass more data sets, or priors.")
        return edges

    episodes = [_episode(d, known(d.group, d.genes[d.genes >= 0]), hidden, untouched, config, seed) for d in data]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = KnowledgeHead(len(config.networks))
    fit_knowledge(head, episodes, config=config, seed=seed)
    training = {"corpus": list(corpus), "edges_of_priors": len(prior), "genes_unseen": len(hidden), "seed": seed}
    factors = GeneFactors.from_edges(known(), size=config.size, seed=seed)
    return RegulatoryKnowledge(factors, head, config, _density(episodes), vocabulary().version, training)


def _density(episodes: Sequence[Episode]) -> tuple[float, ...]:
    """Share of edges in each kind of network, mean over the data sets that have it; over all kinds where none has."""
    kinds: list[list[float]] = [[] for _ in episodes[0].networks]
    for episode in episodes:
        for kind, edges, others in episode.learnable():
            kinds[kind].append(len(edges) / (len(edges) + len(others)))
    whole = float(np.mean(np.concatenate(kinds)))
    return tuple(float(np.mean(shares)) if shares else whole for shares in kinds)


def _rows(names: Iterable[str]) -> np.ndarray:
    """Rows of the vocabulary, -1 outside."""
    return match([str(name) for name in names], "auto").row.astype(np.int64)


def _hidden(unseen: Sequence[str]) -> np.ndarray:
    """Rows of genes whose edges are not to be used."""
    if isinstance(unseen, str):
        raise TypeError(f"unseen={unseen!r} must be a list of names.")
    rows = _rows(unseen)
    if len(rows) and (rows < 0).all():
        raise ValueError(f"unseen: none of the {len(rows)} genes is known (first: {', '.join(map(str, unseen[:3]))}).")
    if outside := int((rows < 0).sum()):
        logger.info("unseen: %d of %d genes are outside the vocabulary, as are their edges", outside, len(rows))
    return np.setdiff1d(rows, [-1])


def _pairs(table: pd.DataFrame) -> np.ndarray:
    """Rows of both ends of each edge that has both in the vocabulary, ``[e, 2]``."""
    pairs = np.stack([_rows(table[source_column(table, "priors")]), _rows(table["target"])], axis=1)
    inside = (pairs >= 0).all(axis=1)
    logger.info("prior: %d of %d edges have both ends in the vocabulary", inside.sum(), len(pairs))
    return pairs[inside]


def _within(pairs: np.ndarray, genes: np.ndarray, one_end: bool = False) -> np.ndarray:
    """Whether both ends, or one, are among some genes."""
    inside = np.isin(pairs, genes)
    return inside.any(axis=-1) if one_end else inside.all(axis=-1)


def _read(name: str, adata: AnnData, group: str, kind: Kind, config: KnowledgeConfig, seed: int) -> _DataSet:
    check_unique_genes(adata)
    for key in ("tfs", "grn_truth"):
        if key not in adata.uns:
            raise KeyError(f"corpus[{name!r}].uns has no {key!r}: it needs the names of the regulators, and networks.")
    tfs = adata.var_names.get_indexer(list(adata.uns["tfs"]))
    if (tfs < 0).any():
        raise ValueError(f"corpus[{name!r}].uns['tfs'] names {(tfs < 0).sum()} genes that are not in var_names.")
    genes = adata.var[_keys.GENE_ROW].to_numpy(np.int64) if has_rows(adata.var) else _rows(adata.var_names)
    with of_data(f"corpus[{name!r}]"):
        expression = io.expression(adata, kind=kind)
    profiles = torch.from_numpy(gene_profiles(expression, seed=seed))
    context = context_scores(profiles, torch.from_numpy(tfs))
    networks = {}
    for network in set(config.networks) & set(adata.uns["grn_truth"]):
        table = adata.uns["grn_truth"][network]
        source = source_column(table, f"corpus[{name!r}].uns['grn_truth'][{network!r}]")
        place = np.stack([adata.var_names.get_indexer(table[end]) for end in (source, "target")], axis=1)
        rows = genes[place[(place >= 0).all(axis=1)]]
        networks[network] = rows[(rows >= 0).all(axis=1)]
    if not networks:
        found = ", ".join(adata.uns["grn_truth"])
        raise ValueError(f"corpus[{name!r}] has none of the networks {config.networks} (found: {found}). Set config.")
    return _DataSet(group, genes, genes[tfs], context, networks)


def _episode(
    data: _DataSet, seen: np.ndarray, hidden: np.ndarray, untouched: bool, config: KnowledgeConfig, seed: int
) -> Episode:
    """Evidence for all pairs of a data set; of each network its regulators with its genes, the hidden left out."""
    factors = GeneFactors.from_edges(seen, size=config.size, seed=seed)
    known = factors.evidence(torch.from_numpy(data.tfs), torch.from_numpy(data.genes))
    evidence = torch.cat([known, data.context[:, :, None].log1p().cpu()], dim=-1)
    tf, gene = np.meshgrid(data.tfs, data.genes, indexing="ij")
    pairs = np.stack([tf, gene], axis=-1)
    asked = (pairs >= 0).all(axis=-1) & (tf != gene) & ~_within(pairs, hidden, untouched)
    networks = []
    for edges in map(data.networks.get, config.networks):
        if edges is None:
            networks.append(None)
            continue
        inside = asked & np.isin(tf, edges[:, 0]) & np.isin(gene, edges)
        is_edge = inside & np.isin(_number(pairs), _number(edges))
        assert not np.isin(_number(pairs[is_edge]), _number(seen)).any(), "an edge that is asked for is seen"
        networks.append((np.argwhere(is_edge), np.argwhere(inside & ~is_edge)))
    return Episode(evidence, networks)


def _number(pairs: np.ndarray) -> np.ndarray:
    """One number a pair of rows."""
    return pairs[..., 0] * len(vocabulary()) + pairs[..., 1]
