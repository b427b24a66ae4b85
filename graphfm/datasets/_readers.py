"""A reader for each format in the table: ``read_<reader>(entry, locate)``; ``locate(path)`` gives a checked file."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from ._registry import DatasetInfo

Locate = Callable[[str], Path]

_SIGNS = {"+": 1, "-": -1, "Activation": 1, "Repression": -1}


def read_h5ad(entry: DatasetInfo, locate: Locate) -> ad.AnnData:
    """A tidy file; ``uns["dataset"]`` says which one."""
    adata = ad.read_h5ad(locate(entry.files[0].path))
    adata.uns["dataset"] = entry.name
    return adata


def _with_truth(
    expression: pd.DataFrame, truth: dict[str, pd.DataFrame], tfs: list[str], entry: DatasetInfo
) -> ad.AnnData:
    """AnnData of a table cells x genes with its reference networks."""
    adata = ad.AnnData(
        sp.csr_matrix(expression.to_numpy(np.float32)),
        obs=pd.DataFrame(index=expression.index.astype(str)),
        var=pd.DataFrame({"is_tf": expression.columns.isin(tfs)}, index=expression.columns.astype(str)),
    )
    adata.uns.update(grn_truth=truth, tfs=np.array(sorted(tfs), dtype=object), is_raw_counts=False, dataset=entry.name)
    return adata


def read_beeline(entry: DatasetInfo, locate: Locate) -> ad.AnnData:
    """Expression is genes x cells; networks and factors are matched to it by gene name, never by position."""
    truth, tfs, expression = {}, set(), None
    for file in entry.files:
        path = locate(file.path)
        if file.path.endswith("BL--ExpressionData.csv.gz"):
            expression = pd.read_csv(path, index_col=0).T
            continue
        if file.path.endswith("TF.csv"):
            tfs.update(pd.read_csv(path)["TF"].astype(str))
            continue
        network = file.path.split("/Benchmark Dataset/")[1].split(" Dataset/")[0]
        edges = pd.read_csv(path, usecols=["Gene1", "Gene2"], dtype=str)
        truth[network] = edges.rename(columns={"Gene1": "tf", "Gene2": "target"})
    assert expression is not None
    for network, edges in truth.items():
        known = edges["tf"].isin(expression.columns) & edges["target"].isin(expression.columns)
        truth[network] = edges[known].reset_index(drop=True)
    return _with_truth(expression, truth, sorted(tfs.intersection(expression.columns)), entry)


def read_beeline_synthetic(
    entry: DatasetInfo, locate: Locate, *, replicate: int = 0, num_cells: int = 500
) -> ad.AnnData:
    """One simulation of a synthetic network; the truth is signed."""
    folder = entry.files[0].path.rsplit("/", 1)[0]
    stem = f"{folder}/{num_cells}_{replicate}"
    expression = pd.read_csv(locate(f"{stem}_ExpressionData.csv.gz"), index_col=0).T
    times = pd.read_csv(locate(f"{stem}_PseudoTime.csv.gz"), index_col=0)
    edges = pd.read_csv(locate(f"{folder}/refNetwork.csv"), dtype=str)
    truth = pd.DataFrame({"tf": edges["Gene1"], "target": edges["Gene2"], "sign": edges["Type"].map(_SIGNS)})
    adata = _with_truth(expression, {"reference": truth}, sorted(set(truth["tf"])), entry)
    for number, column in enumerate(times.columns):
        adata.obs[f"pseudotime_{number}"] = times[column].reindex(adata.obs_names).to_numpy()
    return adata


def read_dream4(entry: DatasetInfo, locate: Locate) -> ad.AnnData:
    """Conditions x genes and the edges of the gold standard that are marked 1."""
    expression_file, gold_file = (file.path for file in entry.files)
    expression = pd.read_csv(locate(expression_file))
    expression.index = [f"condition_{row}" for row in range(len(expression))]
    gold = pd.read_csv(locate(gold_file), sep="\t", header=None, names=["tf", "target", "edge"])
    truth = gold.loc[gold["edge"] == 1, ["tf", "target"]].reset_index(drop=True).assign(sign=0)
    return _with_truth(expression, {"reference": truth}, sorted(set(gold["tf"])), entry)


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles that hold numpy arrays, scipy CSR matrices, dicts and lists; refuses every other name."""

    _ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("scipy.sparse.csr", "csr_matrix"): sp.csr_matrix,
        ("collections", "defaultdict"): defaultdict,
        ("__builtin__", "list"): list,
        ("builtins", "list"): list,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The object of a name in the short list of containers."""
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file; nothing was run.") from None


def _unpickle(path: Path) -> Any:
    with path.open("rb") as handle:
        return ArrayUnpickler(handle, encoding="latin1").load()


def planetoid_arrays(paths: dict[str, Path]) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray, np.ndarray]:
    """Features, classes, edges ``[e, 2]`` in both directions, masks ``[3, n]`` of Planetoid's eight files.

    The files are keyed by the last part of their names (``x``, ..., ``graph``, ``index``).

    The public split: 20 training nodes a class, the next 500 validate, the listed nodes test.
    """
    parts = {key: _unpickle(path) for key, path in paths.items() if key != "index"}
    test = np.loadtxt(paths["index"], dtype=np.int64)
    graph = parts["graph"]
    known, total = parts["allx"].shape[0], len(graph)
    # nodes of the test range without an edge are missing from tx: they keep zero features and class 0
    x = sp.lil_matrix((total, parts["allx"].shape[1]), dtype=np.float32)
    y = np.zeros((total, parts["ally"].shape[1]), dtype=np.int64)
    x[:known], y[:known] = parts["allx"], parts["ally"]
    x[test], y[test] = parts["tx"], parts["ty"]
    edges = np.array([(node, other) for node, others in graph.items() for other in others], dtype=np.int64)
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    num_train = parts["x"].shape[0]
    masks = np.zeros((3, total), dtype=bool)
    masks[0, :num_train] = masks[1, num_train : num_train + 500] = masks[2, test] = True
    return x.tocsr(), y.argmax(1), edges, masks


def _node_data(x: np.ndarray, y: np.ndarray, edges: np.ndarray, masks: np.ndarray) -> Data:
    import torch
    from torch_geometric.data import Data

    arrays = {"x": x, "y": y, "edge_index": edges.T.copy()}
    arrays |= dict(zip(("train_mask", "val_mask", "test_mask"), masks, strict=True))
    return Data(**{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})


def read_planetoid(entry: DatasetInfo, locate: Locate) -> Data:
    """Planetoid's own files."""
    x, y, edges, masks = planetoid_arrays({file.path.rsplit(".", 1)[1]: locate(file.path) for file in entry.files})
    return _node_data(x.toarray(), y, edges, masks)


def read_node_graph(entry: DatasetInfo, locate: Locate) -> Data:
    """A graph that `data_prep` made: see ``data_prep/node_graphs.py``."""
    adata = ad.read_h5ad(locate(entry.files[0].path))
    split, edges = adata.obs["split"].to_numpy(), np.stack(adata.obsp["edges"].nonzero(), axis=1).astype(np.int64)
    masks = np.stack([split == name for name in ("train", "validation", "test")])
    return _node_data(adata.X.toarray(), adata.obs["class"].to_numpy(dtype=np.int64), edges, masks)


def read_heterophilous(entry: DatasetInfo, locate: Locate) -> Data:
    """Edges are stored once: both directions are given, as the authors' code does."""
    import torch
    from torch_geometric.data import Data
    from torch_geometric.utils import to_undirected

    with np.load(locate(entry.files[0].path), allow_pickle=False) as stored:
        arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
    masks = {f"{split}_mask": arrays[f"{split}_masks"].T.contiguous() for split in ("train", "val", "test")}
    edge_index = to_undirected(arrays["edges"].T.contiguous())
    return Data(x=arrays["node_features"], y=arrays["node_labels"], edge_index=edge_index, **masks)


def read_tf_list(entry: DatasetInfo, locate: Locate) -> list[str]:
    """One symbol a line."""
    return sorted(set(locate(entry.files[0].path).read_text(encoding="utf-8").split()))


def read_gene_list(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """Symbols without the special tokens of the model that the list was made for."""
    genes = pd.read_csv(locate(entry.files[0].path), keep_default_na=False)["gene_name"]
    return pd.DataFrame({"gene": genes[~genes.str.startswith("<")].to_numpy()})


def read_collectri(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """Sign where OmniPath's sources agree on one, else 0."""
    table = pd.read_csv(locate(entry.files[0].path))
    sign = table["consensus_stimulation"].astype(int) - table["consensus_inhibition"].astype(int)
    return table[["source", "target"]].assign(sign=sign, n_references=table["n_references"])


def read_dorothea(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """An R data frame: tf, confidence, target, mode of regulation."""
    path = locate(entry.files[0].path)
    try:
        import rdata
    except ImportError:
        raise ImportError(f"{entry.name!r} is an R file. Install the reader: pip install 'graphfm[prep]'") from None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tibble is read as a plain data frame
        (table,) = rdata.read_rda(path).values()
    text = table[["tf", "target", "confidence"]].astype(object)
    return pd.DataFrame(
        {
            "source": text["tf"].to_numpy(),
            "target": text["target"].to_numpy(),
            "sign": np.sign(table["mor"].to_numpy()).astype(int),
            "confidence": text["confidence"].to_numpy(),
        }
    )


def read_trrust(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """Signs from the mode; 0 where it is unknown."""
    columns = ["source", "target", "mode", "pubmed"]
    table = pd.read_csv(
        locate(entry.files[0].path), sep="\t", header=None, names=columns, dtype=str, keep_default_na=False
    )
    sign = table["mode"].map(_SIGNS).fillna(0).astype(int)
    return table[["source", "target"]].assign(sign=sign, pubmed=table["pubmed"])


def read_ligand_receptor(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """Ligand, receptor, pathway, category; the carrier wrote no column names."""
    table = pd.read_csv(locate(entry.files[0].path), index_col=0)
    table.columns = ["source", "target", "pathway", "category"]
    return table.assign(sign=0)[["source", "target", "sign", "pathway", "category"]].reset_index(drop=True)


def read_liana(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """Symbols of ligands and receptors with the resource that has the pair."""
    table = pd.read_csv(locate(entry.files[0].path))
    return pd.DataFrame(
        {
            "source": table["source_genesymbol"],
            "target": table["target_genesymbol"],
            "sign": 0,
            "resource": table["resource"],
        }
    )


def read_orthologs(entry: DatasetInfo, locate: Locate) -> pd.DataFrame:
    """Every gene of one species; empty where the other has no ortholog."""
    columns = ["gene_id", "gene_name", "ortholog_name", "ortholog_id", "homology_type", "confidence", "gene_order"]
    table = pd.read_csv(locate(entry.files[0].path), dtype=str, keep_default_na=False)
    table.columns = columns
    return table
