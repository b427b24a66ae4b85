"""What the zero-shot setting of Table 3 knows of other cells, and simple methods that read the same."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
import torch
from _grn_methods import edge_table, kind_of
from anndata import AnnData

from graphfm import datasets, tl
from graphfm.genes import vocabulary
from graphfm.models.knowledge import RegulatoryKnowledge

CORPUS = {
    "beeline_hhep_1000": "hHEP",
    "beeline_mdc_1000": "mDC",
    "beeline_mhsc_l_1000": "mHSC",
    "beeline_mesc_500": "mESC",
}
"""Data sets with known networks, the larger of each cell type."""
PRIORS = ("collectri_human", "dorothea_human", "dorothea_mouse", "trrust_human", "trrust_mouse")
"""Curated tables; of DoRothEA all but its least sure class."""
METHODS = ("degree_product", "paths_of_three", "graphfm:no_expression", "graphfm:untouched", "graphfm")


def learn(
    cell_type: str | None = None, genes: Sequence[str] = (), *, untouched: bool = False, seed: int = 0
) -> RegulatoryKnowledge:
    """From all cell types but one, without edges between some genes, or without edges of them."""
    corpus = {name: datasets.load(name) for name, group in CORPUS.items() if group != cell_type}
    kinds = {name: kind_of(adata) for name, adata in corpus.items()}
    priors = [datasets.prior(name) for name in PRIORS]
    priors = [table[table["confidence"] != "E"] if "confidence" in table else table for table in priors]
    return tl.pretrain_grn(
        corpus, priors=priors, groups=CORPUS, unseen=genes, untouched=untouched, kind=kinds, seed=seed
    )


@cache
def without(dataset: str, untouched: bool, seed: int) -> RegulatoryKnowledge:
    """What is left to learn from for a data set whose cell type, and whose genes' edges, are taken out."""
    same = dataset.split("_")[1]
    cell_type = next(group for name, group in CORPUS.items() if name.split("_")[1] == same)
    return learn(cell_type, datasets.load(dataset).var_names, untouched=untouched, seed=seed)


def scores(method: str, dataset: str, adata: AnnData, tfs: list[str], seed: int) -> pd.DataFrame:
    """Edges by one method."""
    knowledge = without(dataset, method == "graphfm:untouched", seed)
    if method in ("graphfm", "graphfm:untouched"):
        tl.infer_grn(adata, tfs=tfs, mode="zero_shot", model=knowledge, kind=kind_of(adata), max_edges=None, seed=seed)
        return adata.uns["grn"]
    genes = torch.from_numpy(vocabulary().rows(adata.var_names).astype(np.int64))
    rows = genes[adata.var_names.get_indexer(tfs)]
    if method == "graphfm:no_expression":
        values = knowledge.probability(rows, genes, torch.zeros(len(rows), len(genes)))
    else:
        known = knowledge.factors.evidence(rows, genes)
        values = known[..., 4] if method == "paths_of_three" else known[..., 0] + known[..., 1]
    return edge_table(values.numpy(), tfs, adata.var_names)
