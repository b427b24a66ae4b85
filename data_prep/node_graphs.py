"""Two larger citation graphs -> planetoid_pubmed, ogbn_arxiv.

    python data_prep/node_graphs.py [name ...]

Nodes are papers: features in X, ``obs["class"]``, ``obs["split"]`` (train, validation, test, none), edges in both
directions in ``obsp["edges"]``.
"""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from _tidy import Fetch, Recipe, github, run, tidy
from anndata import AnnData

from graphfm.datasets._readers import planetoid_arrays

PLANETOID = "af6abf468a772cc055bec88c52e4d6f51b7c37e3"
PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
ARXIV = "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"
SPLITS = {"train": "train", "valid": "validation", "test": "test"}


def graph(features: np.ndarray | sp.spmatrix, classes: np.ndarray, split: np.ndarray, edges: np.ndarray) -> AnnData:
    """Nodes with features and classes, and edges ``[e, 2]``, in the project's form."""
    nodes, channels = features.shape
    ends = (np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]]))
    links = sp.csr_matrix((np.ones(len(ends[0]), dtype=np.float32), ends), shape=(nodes, nodes))
    links.setdiag(0)
    links.eliminate_zeros()
    links.data[:] = 1
    adata = tidy(
        features,
        cells=[f"n{row}" for row in range(nodes)],
        genes=[f"f{column}" for column in range(channels)],
        obs={"class": np.asarray(classes, dtype=np.int64), "split": split},
        counts=False,
    )
    adata.obsp["edges"] = links
    return adata


def planetoid(paths: dict[str, Path]) -> AnnData:
    """The eight files of Planetoid."""
    x, y, edges, masks = planetoid_arrays(paths)
    split = np.select(list(masks), list(SPLITS.values()), default="none")
    return graph(x, y, split, edges)


def arxiv(archive: Path) -> AnnData:
    """OGB's archive: tables without a header, and lists of nodes split by year."""
    with zipfile.ZipFile(archive) as files:

        def table(name: str) -> np.ndarray:
            with files.open(f"arxiv/{name}.csv.gz") as handle:
                return pd.read_csv(handle, header=None, compression="gzip").to_numpy()

        classes = table("raw/node-label").ravel()
        split = np.full(len(classes), "none", dtype=object)
        for name, title in SPLITS.items():
            split[table(f"split/time/{name}").ravel()] = title
        return graph(table("raw/node-feat"), classes, split, table("raw/edge"))


def pubmed_recipe(fetch: Fetch) -> AnnData:
    files = {part: github("kimiyoung/planetoid", PLANETOID, f"data/ind.pubmed.{part}") for part in PARTS}
    return planetoid({part.removeprefix("test."): fetch(address) for part, address in files.items()})


def arxiv_recipe(fetch: Fetch) -> AnnData:
    return arxiv(fetch(ARXIV))


RECIPES: dict[str, Recipe] = {"planetoid_pubmed": pubmed_recipe, "ogbn_arxiv": arxiv_recipe}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
