"""A synthetic tissue with planted truth for all three graphs at once.

Cells are drawn in blocks of fixed size, each from a generator seeded by ``(seed, block number)``: the first ``n`` cells
are the same whatever ``num_cells`` is, and memory beyond the result stays at one block.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from graphfm.datasets._toy_tissue import BLOCK, Layout, draw_block, draw_network, draw_plan

_SPACING_UM = 15.0


def toy(
    num_cells: int = 2000,
    num_genes: int = 500,
    *,
    num_tfs: int = 40,
    num_types: int = 6,
    rare_fraction: float = 0.02,
    num_domains: int = 4,
    num_batches: int = 2,
    organism: Literal["human", "mouse"] = "human",
    spatial: bool = True,
    depth: float = 2.0,
    dropout: float = 0.2,
    batch_effect: float = 0.3,
    seed: int = 0,
) -> AnnData:
    """Draw a tissue whose regulatory network, cell types, rare type and domains are known.

    TF activity (cell type + niche + cell noise + a cascade without cycles) moves the log-rates of the targets by signed
    weights; counts are gamma-Poisson with log-normal library sizes, gene-wise batch shifts and extra dropout.

    Parameters
    ----------
    num_cells, num_genes
        Shape of the result. The first ``n`` cells do not depend on `num_cells`; only the coordinates grow with it.
    num_tfs
        Regulators among the genes, at most half of them.
    num_types
        Cell types, the rare one included.
    rare_fraction
        Share of cells of the rare type, in [0, 0.5). 0 plants none (a control for false discoveries).
    num_domains
        Tissue domains per slide: curved layers and, from three on, one round region.
    num_batches
        Batches; each is a slide of its own with its own layout and batch shift.
    organism
        Whose gene symbols to use.
    spatial
        Whether to write coordinates, domains and slides. The counts are the same either way.
    depth
        Mean counts per gene and cell before dropout and library size.
    dropout
        Probability that a count with a very low rate is lost; it falls with the rate ``mu`` as ``dropout / (1 + mu)``.
    batch_effect
        Standard deviation of the gene-wise log shifts of a batch.
    seed
        Seed of everything.

    Returns
    -------
    AnnData
        ``X`` csr float32 counts; ``obs``: cell_type, batch, is_rare, domain, slide; ``var``: is_tf, gene_ids;
        ``obsm["spatial"]`` in micrometres, each slide in its own frame (pass ``library_key="slide"``);
        ``uns["toy_truth"]``: grn (DataFrame tf, target, sign, weight), rare_type ("" when none),
        rare_tfs (the regulators of its programme), parameters.

    Raises
    ------
    ValueError
        When a size is out of range or the vocabulary has too few genes.

    Examples
    --------
    >>> adata = graphfm.datasets.toy(500, 200, num_tfs=20)  # doctest: +SKIP
    >>> adata.uns["toy_truth"]["grn"].head()  # doctest: +SKIP
    """
    parameters = dict(locals())
    _check(parameters)
    rng = np.random.default_rng([seed, 0])
    names, ids, tf_columns = _genes(rng, num_genes, num_tfs, organism)
    network = draw_network(rng, num_genes, tf_columns, has_rare=rare_fraction > 0)
    plan = draw_plan(rng, network, parameters)
    layout = Layout.draw(rng, num_batches, num_domains)

    blocks = [draw_block(plan, layout, b) for b in range(-(-num_cells // BLOCK))]
    obs = {key: np.concatenate([b[0][key] for b in blocks])[:num_cells] for key in blocks[0][0]}
    # Trimmed before stacking: a slice of the whole would be one more copy.
    blocks[-1] = (blocks[-1][0], blocks[-1][1][: num_cells - (len(blocks) - 1) * BLOCK])
    x = sparse.vstack([b[1] for b in blocks], format="csr")
    frame = _obs(obs, num_types, num_domains, num_batches, rare_fraction > 0)
    var = pd.DataFrame({"is_tf": np.isin(np.arange(num_genes), tf_columns), "gene_ids": ids}, index=names)
    adata = AnnData(x, obs=frame if spatial else frame.drop(columns=["domain", "slide"]), var=var)
    if spatial:
        adata.obsm["spatial"] = _coordinates(obs, num_cells, num_batches, seed)
    adata.uns["toy_truth"] = {
        "grn": network.table(names),
        "rare_type": f"type_{num_types - 1}" if rare_fraction > 0 else "",
        "rare_tfs": names[tf_columns[num_tfs - network.num_rare_tfs :]].astype(str),
        "parameters": parameters,
    }
    return adata


def _check(p: dict) -> None:
    has_rare = p["rare_fraction"] > 0
    lower = {"num_cells": 1, "num_genes": 4, "num_tfs": 2, "num_types": 3 if has_rare else 2}
    for name, least in (lower | {"num_domains": 1, "num_batches": 1}).items():
        if p[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {p[name]}.")
    if 2 * p["num_tfs"] > p["num_genes"]:
        raise ValueError(f"num_tfs ({p['num_tfs']}) must be at most half of num_genes ({p['num_genes']}).")
    for name, end in (("rare_fraction", 0.5), ("dropout", 1.0)):
        if not 0 <= p[name] < end:
            raise ValueError(f"{name} must be in [0, {end}), got {p[name]}.")
    if p["depth"] <= 0 or p["batch_effect"] < 0:
        raise ValueError(
            f"depth must be above 0 and batch_effect at least 0, got {p['depth']} and {p['batch_effect']}."
        )
    if p["organism"] not in ("human", "mouse"):
        raise ValueError(f"organism must be 'human' or 'mouse', got {p['organism']!r}.")


def _genes(rng: np.random.Generator, num_genes: int, num_tfs: int, organism: str) -> tuple[np.ndarray, ...]:
    from graphfm.genes import vocabulary

    table = vocabulary().table
    symbol = table[f"{organism}_symbol"].fillna("").astype(str)
    table = table[(symbol != "") & ~symbol.duplicated()]
    is_tf = table["tf"].to_numpy(dtype=bool)
    rows_tf, rows_other = np.flatnonzero(is_tf), np.flatnonzero(~is_tf)
    if len(rows_tf) < num_tfs or len(rows_other) < num_genes - num_tfs:
        raise ValueError(
            f"The vocabulary has {len(rows_tf)} TFs and {len(rows_other)} other {organism} genes; num_tfs={num_tfs} "
            f"and num_genes={num_genes} ask for more. Ask for fewer genes."
        )
    other = rng.choice(rows_other, num_genes - num_tfs, replace=False)
    rows = np.concatenate([rng.choice(rows_tf, num_tfs, replace=False), other])
    place = rng.permutation(num_genes)  # so that the position of a gene tells nothing
    order = np.argsort(place)
    names = table[f"{organism}_symbol"].to_numpy(dtype=object)[rows][order]
    ids = table[f"{organism}_id"].fillna("").to_numpy(dtype=object)[rows][order]
    return names, ids, place[:num_tfs]


def _coordinates(obs: dict[str, np.ndarray], num_cells: int, num_batches: int, seed: int) -> np.ndarray:
    side = _SPACING_UM * np.sqrt(-(-num_cells // num_batches))
    jitter = np.random.default_rng([seed, 2]).normal(scale=0.2 * _SPACING_UM, size=(num_cells, 2))
    return obs["unit"] * side + jitter


def _obs(
    obs: dict[str, np.ndarray], num_types: int, num_domains: int, num_batches: int, has_rare: bool
) -> pd.DataFrame:
    def named(prefix: str, codes: np.ndarray, count: int) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, [f"{prefix}_{i}" for i in range(count)])

    columns = {
        "cell_type": named("type", obs["type"], num_types),
        "domain": named("domain", obs["domain"], num_domains),
        "batch": named("batch", obs["batch"], num_batches),
        "slide": named("slide", obs["batch"], num_batches),
        "is_rare": obs["rare"],
    }
    return pd.DataFrame(columns, index=[f"cell_{i}" for i in range(len(obs["type"]))])
