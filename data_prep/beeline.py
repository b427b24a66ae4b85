"""BEELINE's seven cell types from its Zenodo record, for those without direct links -> beeline_<cell type>_<genes>.

    python data_prep/beeline.py [beeline_hesc_500 ...]

Follows the benchmark's rule for "TFs+N": genes whose variation over pseudotime passes p < 0.01 after Bonferroni
correction; of these all transcription factors, and the N others of the highest variance. Each network is restricted to
the chosen genes, without self-loops and duplicates. Values are log-normalised as published.
"""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from _tidy import Fetch, Recipe, run, tidy
from anndata import AnnData

RECORD = "https://zenodo.org/records/3701939/files"
DATA, NETWORKS = f"{RECORD}/BEELINE-data.zip", f"{RECORD}/BEELINE-Networks.zip"
P_VALUE = 0.01
# cell type -> folder of the expression, organism, cell-type-specific network
CELL_TYPES = {
    "hESC": ("hESC", "human", "hESC-ChIP-seq-network.csv"),
    "hHEP": ("hHep", "human", "HepG2-ChIP-seq-network.csv"),
    "mDC": ("mDC", "mouse", "mDC-ChIP-seq-network.csv"),
    "mESC": ("mESC", "mouse", "mESC-ChIP-seq-network.csv"),
    "mHSC-E": ("mHSC-E", "mouse", "mHSC-ChIP-seq-network.csv"),
    "mHSC-GM": ("mHSC-GM", "mouse", "mHSC-ChIP-seq-network.csv"),
    "mHSC-L": ("mHSC-L", "mouse", "mHSC-ChIP-seq-network.csv"),
}
DIRECT = {("hHEP", 500), ("hHEP", 1000), ("mDC", 500), ("mDC", 1000), ("mHSC-L", 500), ("mHSC-L", 1000), ("mESC", 500)}


def select_genes(ordering: pd.DataFrame, expressed: pd.Index, tfs: set[str], *, num_genes: int) -> tuple[list, list]:
    """Variable transcription factors and the ``num_genes`` most variable other genes.

    ``ordering`` is indexed by gene; its first column is the p-value over pseudotime, its second the variance.
    """
    table = ordering[ordering.index.isin(expressed)]
    table = table[table.iloc[:, 0] < P_VALUE / len(table)]
    factors = [gene for gene in table.index if gene in tfs]
    others = table.drop(index=factors).sort_values(table.columns[1], ascending=False, kind="stable")
    return factors, others.index[:num_genes].tolist()


def convert(
    expression: pd.DataFrame,
    ordering: pd.DataFrame,
    tfs: set[str],
    networks: dict[str, pd.DataFrame],
    *,
    num_genes: int,
) -> AnnData:
    """Expression (genes x cells) of the chosen genes with the networks restricted to them."""
    factors, others = select_genes(ordering, expression.index, tfs, num_genes=num_genes)
    chosen = expression.loc[factors + others]
    adata = tidy(chosen.to_numpy().T, cells=chosen.columns, genes=chosen.index, counts=False)
    truth = {}
    for name, edges in networks.items():
        edges = edges[["Gene1", "Gene2"]].set_axis(["tf", "target"], axis=1)
        inside = edges["tf"].isin(chosen.index) & edges["target"].isin(chosen.index)
        edges = edges[inside & (edges["tf"] != edges["target"])].drop_duplicates()
        truth[name] = edges.astype(str).reset_index(drop=True)
    adata.var["is_tf"] = adata.var_names.isin(factors)
    adata.uns.update(grn_truth=truth, tfs=np.array(sorted(factors), dtype=object))
    return adata


def _member(archive: zipfile.ZipFile, ending: str) -> str:
    """The member that ends so; the capitals of file names differ between releases."""
    found = [name for name in archive.namelist() if name.lower().endswith(ending.lower()) and "__MACOSX" not in name]
    if len(found) != 1:
        raise ValueError(f"{archive.filename} has {len(found)} files that end in {ending!r}: {found[:4]}")
    return found[0]


def _table(path: Path, ending: str, **options: int) -> pd.DataFrame:
    with zipfile.ZipFile(path) as archive, archive.open(_member(archive, ending)) as member:
        return pd.read_csv(member, **options)


def convert_archives(data: Path, nets: Path, *, cell_type: str, num_genes: int) -> AnnData:
    """One data set from the two archives of the record."""
    folder, organism, specific = CELL_TYPES[cell_type]
    files = {"STRING": "STRING-network.csv", "Non-Specific": "Non-specific-ChIP-seq-network.csv", "Specific": specific}
    if cell_type == "mESC":
        files["Lofgof"] = "mESC-lofgof-network.csv"
    networks = {name: _table(nets, f"Networks/{organism}/{file}") for name, file in files.items()}
    tfs = set(_table(nets, f"{organism}-tfs.csv").iloc[:, 0].astype(str))
    expression = _table(data, f"scRNA-Seq/{folder}/ExpressionData.csv", index_col=0)
    ordering = _table(data, f"scRNA-Seq/{folder}/GeneOrdering.csv", index_col=0)
    return convert(expression, ordering, tfs, networks, num_genes=num_genes)


def _recipe(cell_type: str, num_genes: int) -> Recipe:
    def recipe(fetch: Fetch) -> AnnData:
        return convert_archives(fetch(DATA), fetch(NETWORKS), cell_type=cell_type, num_genes=num_genes)

    return recipe


RECIPES: dict[str, Recipe] = {
    f"beeline_{cell_type.lower().replace('-', '_')}_{num_genes}": _recipe(cell_type, num_genes)
    for cell_type in CELL_TYPES
    for num_genes in (500, 1000)
    if (cell_type, num_genes) not in DIRECT
}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
