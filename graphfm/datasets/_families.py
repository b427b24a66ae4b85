"""Families of data sets: one function with arguments over several entries of the table."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from . import _readers
from ._fetch import locate
from ._registry import info, load, names

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from torch_geometric.data import Data

__all__ = ["beeline", "beeline_synthetic", "dream4", "heterophilous", "planetoid", "prior", "tf_list"]


def _member(argument: str, value: object, *, family: str, suffix: str = "") -> str:
    name = f"{family}_{str(value).lower().replace('-', '_')}{suffix}"
    if name not in names():
        family_names = (other for other in names() if other.startswith(family + "_") and other.endswith(suffix))
        known = sorted(other.removeprefix(family + "_").removesuffix(suffix) for other in family_names)
        raise ValueError(f"{argument}={value!r} is not in {family}. Choose from {known}.")
    return name


def beeline(*, cell_type: str = "hHEP", num_genes: int = 500) -> AnnData:
    """Single-cell expression with reference regulatory networks, as the BEELINE benchmark uses it.

    Parameters
    ----------
    cell_type
        ``"hESC"``, ``"hHEP"``, ``"mDC"``, ``"mESC"``, ``"mHSC-E"``, ``"mHSC-GM"`` or ``"mHSC-L"``.
    num_genes
        500 or 1000: the most variable genes that are added to the variable transcription factors.

    Returns
    -------
    AnnData (cells x genes, log-normalised, ``uns["is_raw_counts"]`` False, gene names upper case as published) with

    - ``uns["grn_truth"]``: network name (``"STRING"``, ``"Non-Specific"``, ``"Specific"``, for mESC also ``"Lofgof"``)
      to a DataFrame with columns ``tf`` and ``target``, both names of ``var``;
    - ``uns["tfs"]``: the transcription factors among the genes, sorted; ``var["is_tf"]`` says the same.

    Raises
    ------
    ValueError
        An argument is not one of those named.
    FileNotFoundError, ConnectionError
        As :func:`fetch`. Cell types without a direct link are made by ``data_prep/beeline.py``.

    References
    ----------
    Pratapa et al. 2020, https://doi.org/10.1038/s41592-019-0690-6
    """
    if num_genes not in (500, 1000):
        raise ValueError(f"num_genes must be 500 or 1000, got {num_genes!r}.")
    return load(_member("cell_type", cell_type, family="beeline", suffix=f"_{num_genes}"))


def beeline_synthetic(*, network: str = "dyn-BF", replicate: int = 0, num_cells: int = 500) -> AnnData:
    """Simulated expression of a small network with known, signed edges.

    Parameters
    ----------
    network
        ``"dyn-BF"``, ``"dyn-BFC"``, ``"dyn-CY"``, ``"dyn-LI"``, ``"dyn-LL"`` or ``"dyn-TF"``.
    replicate
        0 to 9.
    num_cells
        500 or 2000.

    Returns
    -------
    AnnData (cells x genes, simulated values, not counts) with ``uns["grn_truth"]["reference"]``, a DataFrame with
    columns ``tf``, ``target``, ``sign`` (+1 activates, -1 represses; self-loops included), ``uns["tfs"]``, and
    ``obs["pseudotime_<lineage>"]`` (NaN off the lineage).

    Raises
    ------
    ValueError
        An argument is not one of those named.
    FileNotFoundError
        As :func:`fetch`.

    References
    ----------
    Pratapa et al. 2020, https://doi.org/10.1038/s41592-019-0690-6
    """
    if replicate not in range(10) or num_cells not in (500, 2000):
        raise ValueError(f"replicate must be 0 to 9 and num_cells 500 or 2000, got {replicate!r} and {num_cells!r}.")
    entry = info(_member("network", network, family="beeline_synthetic"))
    return _readers.read_beeline_synthetic(entry, partial(locate, entry), replicate=replicate, num_cells=num_cells)


def dream4(network: int = 1) -> AnnData:
    """DREAM4 in-silico challenge, 100 genes, multifactorial perturbations.

    Parameters
    ----------
    network
        1 to 5.

    Returns
    -------
    AnnData (100 conditions x 100 genes, simulated values) with ``uns["grn_truth"]["reference"]``, a DataFrame with
    columns ``tf``, ``target``, ``sign``; the published gold standard has no signs, so ``sign`` is 0 (unknown).

    Raises
    ------
    ValueError
        There is no such network.
    FileNotFoundError
        As :func:`fetch`.

    References
    ----------
    Marbach et al. 2010, https://doi.org/10.1073/pnas.0913357107
    """
    return load(_member("network", network, family="dream4"))


def planetoid(name: str = "cora") -> Data:
    """Citation graph with the public split: ``"cora"``, ``"citeseer"`` or ``"pubmed"`` (made by ``data_prep``).

    Returns
    -------
    ``torch_geometric.data.Data`` with ``x`` [nodes, features], ``y`` [nodes], ``edge_index`` [2, edges] (both
    directions, no self-loops, no duplicates), ``train_mask``, ``val_mask``, ``test_mask`` [nodes].

    Raises
    ------
    ValueError
        There is no such graph, or a file has the wrong checksum.
    FileNotFoundError, ConnectionError
        As :func:`fetch`.

    References
    ----------
    Yang et al. 2016, https://doi.org/10.48550/arXiv.1603.08861
    """
    return load(_member("name", name, family="planetoid"))


def heterophilous(name: str = "minesweeper") -> Data:
    """Graph whose neighbours tend to differ: ``"minesweeper"`` or ``"tolokers"``.

    Returns
    -------
    ``torch_geometric.data.Data`` with ``x`` [nodes, features], ``y`` [nodes], ``edge_index`` [2, edges] (both
    directions) and ``train_mask``, ``val_mask``, ``test_mask`` [nodes, 10], one column for each split.

    Raises
    ------
    ValueError
        There is no such graph, or a file has the wrong checksum.
    FileNotFoundError, ConnectionError
        As :func:`fetch`.

    References
    ----------
    Platonov et al. 2023, https://doi.org/10.48550/arXiv.2302.11640
    """
    return load(_member("name", name, family="heterophilous"))


def tf_list(organism: str = "human") -> list[str]:
    """Symbols of transcription factors: ``"human"``, ``"mouse"``, or ``"lambert2018"`` (human).

    Returns
    -------
    Sorted gene symbols.

    Raises
    ------
    ValueError
        There is no such list.
    FileNotFoundError, ConnectionError
        As :func:`fetch`.

    References
    ----------
    https://doi.org/10.1038/s41596-020-0336-2 and, for the third list, https://doi.org/10.1016/j.cell.2018.01.029
    """
    return load(_member("organism", organism, family="tf_list"))


def prior(name: str = "collectri_human") -> pd.DataFrame:
    """Prior knowledge of genes as a table.

    Parameters
    ----------
    name
        ``"collectri_human"``, ``"dorothea_human"``, ``"dorothea_mouse"``, ``"trrust_human"``, ``"trrust_mouse"``
        (regulators to targets); ``"cellchatdb_human"``, ``"cellphonedb_human"`` and their ``_mouse``, ``"liana_human"``
        (ligands to receptors); ``"orthologs_human_mouse"``, ``"orthologs_mouse_human"``; ``"gene_list_human"``.

    Returns
    -------
    DataFrame. Pairs have columns ``source``, ``target``, ``sign`` (+1, -1, 0 = unknown or not applicable), then what
    the resource adds. Orthologs have ``gene_id``, ``gene_name``, ``ortholog_id``, ``ortholog_name``,
    ``homology_type``, ``confidence``, ``gene_order``. The gene list has ``gene``.

    Raises
    ------
    ValueError
        There is no such table.
    ImportError
        DoRothEA is an R file and needs ``rdata``.
    FileNotFoundError, ConnectionError
        As :func:`fetch`.

    References
    ----------
    ``graphfm.datasets.info("prior_<name>").citation``
    """
    return load(_member("name", name, family="prior"))
