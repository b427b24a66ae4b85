"""Pre-training on known networks, for networks of cells that were never seen."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from graphfm import io
from graphfm._vocabulary import match, vocabulary
from graphfm.data.profiles import gene_profiles
from graphfm.io.matrix import Kind
from graphfm.models.knowledge import GeneFactors, KnowledgeConfig, KnowledgeHead, RegulatoryKnowledge
from graphfm.nn.context import context_scores
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
    ValueError
        No data set has a network of the kinds in ``config.networks`` that may be learned from.
    """
    config, groups = config or KnowledgeConfig(), groups or {}
    kinds = kind if isinstance(kind, Mapping) else dict.fromkeys(corpus, kind)
    data = [_read(adata, groups.get(name, name), kinds[name], config, seed) for name, adata in corpus.items()]
    hidden = np.setdiff1d(_rows(unseen), [-1])
    prior = np.concatenate([_pairs(table) for table in priors] or [np.zeros((0, 2), dtype=np.int64)])

    def factors(group: str | None = None, genes: np.ndarray | None = None) -> GeneFactors:
        parts = [network for d in data if d.group != group for network in d.networks.values()]
        edges = np.unique(np.concatenate([prior, *parts]), axis=0)
        edges = edges[(edges >= 0).all(axis=1) & (edges[:, 0] != edges[:, 1]) & ~_within(edges, hidden, untouched)]
        if genes is not None:
            edges = edges[~_within(edges, genes)]
            assert not _within(edges, genes).any(), "an edge that is asked for is seen"
        if not len(edges):
            raise ValueError("No known edge is left to learn from. Pass more data sets, or priors.")
        return GeneFactors.from_edges(edges, size=config.size, seed=seed)

    episodes = [_episode(d, factors(d.group, d.genes[d.genes >= 0]), hidden, untouched, config) for d in data]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = KnowledgeHead(len(config.networks))
    fit_knowledge(head, episodes, config=config, seed=seed)
    networks = [network for episode in episodes for network in episode.networks if network is not None]
    density = float(np.mean([len(edges) / (len(edges) + len(others)) for edges, others in networks]))
    training = {
        "corpus": list(corpus),
        "edges_of_priors": len(np.unique(prior, axis=0)),
        "genes_unseen": len(hidden),
        "seed": seed,
    }
    return RegulatoryKnowledge(factors(), head, config, density, vocabulary().version, training)


def _rows(names: Iterable[str]) -> np.ndarray:
    """Rows of the vocabulary, -1 outside."""
    return match([str(name) for name in names], "auto").row.astype(np.int64)


def _pairs(table: pd.DataFrame) -> np.ndarray:
    """Rows of both ends of each edge that has both in the vocabulary, ``[e, 2]``."""
    pairs = np.stack([_rows(table["source" if "source" in table else "tf"]), _rows(table["target"])], axis=1)
    return pairs[(pairs >= 0).all(axis=1)]


def _within(pairs: np.ndarray, genes: np.ndarray, one_end: bool = False) -> np.ndarray:
    """Whether both ends, or one, are among some genes."""
    inside = np.isin(pairs, genes)
    return inside.any(axis=-1) if one_end else inside.all(axis=-1)


def _read(adata: AnnData, group: str, kind: Kind, config: KnowledgeConfig, seed: int) -> _DataSet:
    genes = _rows(adata.var_names)
    tfs = adata.var_names.get_indexer(list(adata.uns["tfs"]))
    profiles = torch.from_numpy(gene_profiles(io.expression(adata, kind=kind), seed=seed))
    context = context_scores(profiles, torch.from_numpy(tfs))
    named = pd.Series(genes, index=adata.var_names)
    networks = {
        name: np.stack([named[table[end]].to_numpy() for end in ("tf", "target")], axis=1)
        for name, table in adata.uns["grn_truth"].items()
        if name in config.networks
    }
    return _DataSet(group, genes, genes[tfs], context, networks)


def _episode(
    data: _DataSet, factors: GeneFactors, hidden: np.ndarray, untouched: bool, config: KnowledgeConfig
) -> Episode:
    """Evidence for all pairs of a data set; of each network its regulators with its genes, the hidden left out."""
    known = factors.evidence(torch.from_numpy(data.tfs), torch.from_numpy(data.genes))
    evidence = torch.cat([known, data.context[:, :, None].log1p().cpu()], dim=-1)
    tf, gene = np.meshgrid(data.tfs, data.genes, indexing="ij")
    pairs = np.stack([tf, gene], axis=-1)
    asked = (pairs >= 0).all(axis=-1) & (tf != gene) & ~_within(pairs, hidden, untouched)
    networks = []
    for name in config.networks:
        if name not in data.networks:
            networks.append(None)
            continue
        edges = data.networks[name]
        inside = asked & np.isin(tf, edges[:, 0]) & np.isin(gene, edges)
        size = len(vocabulary())
        is_edge = np.isin(tf * size + gene, edges[:, 0] * size + edges[:, 1])
        networks.append((np.argwhere(inside & is_edge), np.argwhere(inside & ~is_edge)))
    return Episode(evidence, networks)
