"""The vocabulary and the alignment of data sets to it."""

import os
import re
import time
from functools import cache
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from graphfm import pp
from graphfm.genes import align_genes, is_aligned, merge_genes, vocabulary

V = vocabulary()
TABLE = V.table
HUMAN = TABLE[TABLE["human_id"] != ""]
MOUSE = TABLE[TABLE["mouse_id"] != ""]
ORTHOLOGS = ["GAPDH Gapdh", "TP53 Trp53", "CD8B Cd8b1", "MT-ND1 mt-Nd1", "TRAC Trac", "MYC Myc", "PTPRC Ptprc"]
ORTHOLOGS += ["POU5F1 Pou5f1", "RPL10 Rpl10", "DDIT3 Ddit3", "CA2 Car2", "NUP58 Nup58", "CCN3 Ccn3", "SEPTIN2 Septin2"]
ODD_NAMES = ["", "MALAT1", "RP11-34P13.7", "Gm37381", "ENSG00000000000", "14563", "Blank_1", "GAPDH-1", "X5_8S_rRNA"]


def _adata(names: list[str], **columns: list) -> ad.AnnData:
    x = np.arange(3 * len(names), dtype=np.float32).reshape(3, len(names))
    data = ad.AnnData(sparse.csr_matrix(x))
    data.var_names = pd.Index(names, dtype=object)
    for key, values in columns.items():
        data.var[key] = values
    return data


@cache
def _slow_tables() -> dict[str, dict[str, int]]:
    """Dictionaries built here, line by line, from the table alone."""
    rows: dict[str, dict[str, int]] = {k: {} for k in ("id", "human", "mouse", "human_alias", "mouse_alias", "via")}
    for i, line in enumerate(TABLE.to_dict("records")):
        for o in ("human", "mouse"):
            if line[f"{o}_id"]:
                rows["id"][line[f"{o}_id"]] = i
                rows[o][line[f"{o}_symbol"].lower()] = i
            for alias in filter(None, line[f"{o}_aliases"].split("|")):
                rows[f"{o}_alias"][alias.lower()] = i
                if o == "human" and line["mouse_id"]:
                    rows["via"][alias.lower()] = i
    return rows


def _slow_row(name: str, organism: str, names: list[str]) -> int:
    """One name at a time."""
    rows = _slow_tables()
    other = "mouse" if organism == "human" else "human"
    steps = [organism, f"{organism}_alias", other] + (["via"] if organism == "mouse" else [])
    wanted = name.upper().split(".")[0]
    if re.fullmatch(r"ENS(MUS)?G\d{11}", wanted):
        return rows["id"].get(wanted, -1)
    base = re.sub(r"[.-]\d+$", "", name)
    spellings = [name, base] if base.lower() in [n.lower() for n in names] else [name]
    spellings += [name.replace(".", "-"), name[1:] if re.match(r"[Xx]\d", name) else name]
    for spelling in spellings:
        for step in steps:
            if spelling.lower() in rows[step]:
                return rows[step][spelling.lower()]
    return -1


def _some_names(draw: st.DrawFn) -> list[str]:
    lines = [TABLE.iloc[i] for i in draw(st.lists(st.integers(0, len(V) - 1), min_size=1, max_size=6))]
    pool = [line[c] for line in lines for c in ("human_id", "human_symbol", "mouse_id", "mouse_symbol") if line[c]]
    pool += [a for line in lines for c in ("human_aliases", "mouse_aliases") for a in line[c].split("|") if a]
    pool += [n.replace("-", ".") for n in pool] + [n + ".3" for n in pool] + ["X" + n for n in pool] + ODD_NAMES
    names = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=12))
    return [*names, lines[0]["human_id"] or lines[0]["mouse_id"]]


names_strategy = st.composite(_some_names)()
organisms = st.sampled_from(["human", "mouse"])


def test_table_is_one_to_one():
    for column in ("human_id", "mouse_id", "human_symbol", "mouse_symbol"):
        values = TABLE.loc[TABLE[column] != "", column]
        assert values.is_unique
        assert values.str.upper().is_unique
    assert ((TABLE["human_id"] != "") | (TABLE["mouse_id"] != "")).all()
    assert ((TABLE["human_id"] == "") == (TABLE["human_symbol"] == "")).all()
    assert ((TABLE["mouse_id"] == "") == (TABLE["mouse_symbol"] == "")).all()
    assert HUMAN["human_id"].str.fullmatch(r"ENSG\d{11}").all()
    assert MOUSE["mouse_id"].str.fullmatch(r"ENSMUSG\d{11}").all()


def test_table_has_the_announced_size():
    assert 19_000 <= len(HUMAN) <= 20_000
    assert 23_000 <= len(V) <= 30_000
    assert len(HUMAN) + len(MOUSE) - len(V) > 16_500
    assert 1_500 < TABLE["tf"].sum() < 2_000
    assert TABLE["tf"].dtype == bool


@pytest.mark.parametrize("organism", ["human", "mouse"])
def test_aliases_are_unambiguous(organism):
    aliases = TABLE[f"{organism}_aliases"].str.split("|").explode()
    aliases = aliases[aliases != ""].str.upper()
    assert aliases.is_unique
    assert not aliases.isin(TABLE[f"{organism}_symbol"].str.upper()).any()


@pytest.mark.parametrize(
    ("human", "mouse"),
    [pair.split() for pair in ORTHOLOGS],
)
def test_known_orthologs_share_a_row(human, mouse):
    row = V.rows([human])
    assert row[0] >= 0
    assert row == V.rows([mouse], organism="mouse")
    assert V.symbols(row, organism="human")[0] == human
    assert V.symbols(row, organism="mouse")[0] == mouse


def test_known_paralogs_and_noncoding_genes():
    assert len(set(V.rows(["HLA-A", "HLA-B", "MT1X", "MT2A", "HBA1", "HBB"]))) == 6
    assert (V.rows(["MALAT1", "XIST", "NEAT1", "H19", "GAPDHP1", "MIR21", "LINC00115"]) == -1).all()
    assert (V.rows(["Malat1", "Xist", "Gm37381", "Rpl10-ps3", "Snhg6"], organism="mouse") == -1).all()
    assert TABLE["tf"].iloc[V.rows(["SOX2", "GATA1", "SPI1"])].all()
    assert not TABLE["tf"].iloc[V.rows(["GAPDH", "CD3E", "ACTB"])].any()


def test_symbols_fall_back_to_the_other_species():
    rows = np.append(V.rows(["HLA-A", "GAPDH"]), -1)
    assert V.symbols(rows, organism="mouse").tolist() == ["HLA-A", "Gapdh", ""]
    assert V.symbols([]).tolist() == []


@settings(max_examples=150, deadline=None)
@given(names_strategy, organisms)
def test_agrees_with_the_slow_matcher(names, organism):
    expected = [_slow_row(n, organism, names) for n in names]
    assert V.rows(names, organism=organism).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(names_strategy, organisms, st.randoms())
def test_order_permutes_the_result(names, organism, random):
    order = list(range(len(names)))
    random.shuffle(order)
    shuffled = [names[i] for i in order]
    assert (V.rows(names, organism=organism)[order] == V.rows(shuffled, organism=organism)).all()


@settings(max_examples=50, deadline=None)
@given(names_strategy, organisms)
def test_case_version_and_copies_change_nothing(names, organism):
    rows = V.rows(names, organism=organism)
    for change in (str.upper, str.lower, str.swapcase, str.title):
        assert (V.rows([change(n) for n in names], organism=organism) == rows).all()
    versioned = [re.sub(r"^(ENS(?:MUS)?G\d{11})$", r"\1.12", n) for n in names]
    assert (V.rows(versioned, organism=organism) == rows).all()
    assert (V.rows(names + names, organism=organism) == np.tile(rows, 2)).all()


@pytest.mark.parametrize(
    ("names", "organism", "kind"),
    [
        (["GAPDH", "CD3E", "MALAT1"], "human", "symbol"),
        (["Gapdh", "Cd3e", "Malat1"], "mouse", "symbol"),
        (["gapdh", "cd3e"], "human", "symbol"),
        (["ENSG00000111640.14", "ENSG00000198851"], "human", "ensembl"),
        (["ENSMUSG00000057666", "ENSMUSG00000032093.7"], "mouse", "ensembl"),
        (["mm10_Gapdh", "mm10_Cd3e"], "mouse", "symbol"),
        (["Gapdh", "CD3E", "Actb"], "mouse", "symbol"),
        (["0610007P14Rik", "Gapdh"], "mouse", "symbol"),
    ],
)
def test_organism_and_kind_are_detected(names, organism, kind):
    report = align_genes(_adata(names))
    assert (report.organism, report.id_kind) == (organism, kind)
    assert report.n_matched >= len(names) - 1


def test_report_counts_what_happened():
    names = ["GAPDH", "SEPT2", "Actb", "ACTB", "ENSG00000198851.1", "ENSMUSG00000057666", "Slco6b1", "LINC00115"]
    data = _adata(names)
    report = align_genes(data, organism="human")
    assert report.table["how"].tolist() == [
        "symbol",
        "alias",
        "symbol",
        "symbol",
        "id",
        "ortholog",
        "ortholog",
        "outside",
    ]
    assert (report.n_by_symbol, report.n_by_alias, report.n_by_id, report.n_by_ortholog) == (3, 1, 1, 2)
    assert (report.n_genes, report.n_matched, report.n_outside, report.n_duplicated) == (8, 7, 1, 2)
    x = data.X.toarray()
    assert report.share_of_counts_matched == pytest.approx(x[:, :7].sum() / x.sum())
    assert data.var["graphfm_gene"].tolist() == report.table["row"].tolist()
    assert data.var["graphfm_gene"].dtype == np.int32
    assert str(report).count("\n") < 10
    assert "LINC00115" in str(report)


def test_odd_spellings():
    names = [
        "hg19_GAPDH",
        "GRCh38______ACTB",
        "mm10___Trp53",
        "HLA.A",
        "HLA-A",
        "X0610007P14Rik",
        "TXNIP_ENSG00000117289",
    ]
    names += ["GAPDH", "GAPDH-1", "GAPDH.2", "ENSG00000182378.14_PAR_Y", "CD3E-1"]
    report = align_genes(_adata(names), organism="human")
    rows = report.table["row"].to_numpy()
    human = V.rows(["GAPDH", "ACTB", "TP53", "HLA-A", "HLA-A"])
    assert (rows[:5] == human).all()
    assert rows[6] == V.rows(["TXNIP"])[0] >= 0
    assert (rows[7:10] == rows[0]).all()
    assert rows[10] == V.rows(["PLCXD1"])[0]
    assert rows[11] == -1, "a copy's number is cut off only where the name itself is there too"
    assert V.rows(["X0610007P14Rik"], organism="mouse") == V.rows(["0610007P14Rik"], organism="mouse")


def test_a_better_column_is_taken_and_reported():
    ids = ["ENSG00000111640", "ENSG00000198851", "ENSG00000075624"]
    data = _adata(["0", "1", "2"], gene_ids=ids, feature_types=["Gene Expression"] * 3, n_cells=[3, 3, 3])
    report = align_genes(data)
    assert (report.gene_key, report.id_kind, report.n_matched) == ("gene_ids", "ensembl", 3)
    data = _adata(["GAPDH", "CD3E", "ACTB"], gene_ids=ids)
    assert align_genes(data).gene_key == "var_names"
    assert align_genes(data, gene_key="gene_ids").gene_key == "gene_ids"
    data.var["feature_name"] = pd.Categorical(["GAPDH", None, "ACTB"])
    assert align_genes(data, gene_key="feature_name").n_matched == 2


def test_nothing_known_is_an_error_that_tells_what_to_do():
    data = _adata(["14563", "31693", "13303", "9"])
    with pytest.raises(ValueError, match=r"var_names.*'14563', '31693', '13303'\).*gene_key=.*organism=\"other\""):
        align_genes(data)
    assert "graphfm_gene" not in data.var
    with pytest.raises(ValueError, match="ghost"):
        align_genes(_adata(["ghost1x", "ghost2x"]), organism="mouse")
    worms = [f"unknown{i}" for i in range(98)] + ["cat-1", "che-1"]
    with pytest.raises(ValueError, match="organism"):
        align_genes(_adata(worms))


def test_other_organism_keeps_everything_outside():
    data = _adata(["hlh-16", "GAPDH"])
    report = align_genes(data, organism="other")
    assert (report.organism, report.n_matched, report.n_outside, report.share_of_counts_matched) == ("other", 0, 2, 0.0)
    assert (data.var["graphfm_gene"] == -1).all()
    assert str(report)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"organism": "rat"}, ValueError, "'auto', 'human', 'mouse' or 'other'"),
        ({"gene_key": "nope"}, KeyError, "has no 'nope'"),
        ({"layer": "nope"}, KeyError, "adata.layers has no 'nope'"),
    ],
)
def test_wrong_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        align_genes(_adata(["GAPDH"]), **arguments)
    with pytest.raises(TypeError, match="AnnData"):
        align_genes(np.ones((2, 2)))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix, sparse.csr_array]
)
def test_matrix_kinds_agree(kind):
    x = np.random.default_rng(0).poisson(1.0, (50, 4)).astype(np.int32)
    data = ad.AnnData(np.zeros((50, 4), dtype=np.float32), var=pd.DataFrame(index=["GAPDH", "CD3E", "MALAT1", "ACTB"]))
    data.layers["counts"] = x if kind is np.asarray else kind(x).tocsr() if kind is sparse.coo_matrix else kind(x)
    report = align_genes(data, layer="counts")
    assert report.share_of_counts_matched == pytest.approx(x[:, [0, 1, 3]].sum() / x.sum())
    assert np.isnan(align_genes(data).share_of_counts_matched)
    assert np.isnan(align_genes(ad.AnnData(var=data.var[[]], obs=data.obs)).share_of_counts_matched)


@pytest.mark.filterwarnings("ignore:Trying to modify attribute")
def test_views_and_copies():
    data = _adata(["GAPDH", "LINC00115", "CD3E"])
    view = data[:2, [2, 1]]
    report = align_genes(view)
    assert view.var["graphfm_gene"].tolist() == [V.rows(["CD3E"])[0], -1]
    x = data.X.toarray()[:2]
    assert report.share_of_counts_matched == pytest.approx(x[:, 2].sum() / x[:, 1:].sum())
    assert "graphfm_gene" not in data.var
    annotated, _ = align_genes(data, copy=True)
    assert "graphfm_gene" not in data.var and "graphfm_genes" not in data.uns
    assert "graphfm_gene" in annotated.var and sparse.issparse(annotated.X)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_backed_files(tmp_path, kind):
    x = np.random.default_rng(1).poisson(0.5, (3000, 30)).astype(np.float32)
    names = [*HUMAN["human_symbol"].iloc[100:125], *(f"LINC{i}x" for i in range(5))]
    data = ad.AnnData(x if kind is np.asarray else kind(x), var=pd.DataFrame(index=names))
    expected = align_genes(data.copy())
    data.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    report = align_genes(backed)
    assert backed.isbacked
    assert report.share_of_counts_matched == pytest.approx(expected.share_of_counts_matched)
    assert backed.var["graphfm_gene"].tolist() == expected.table["row"].tolist()
    annotated, _ = align_genes(backed[:100, :10], copy=True)
    assert annotated.shape == (100, 10)
    backed.file.close()


def test_what_is_written_survives_a_file(tmp_path):
    data = _adata(["GAPDH", "LINC00115", "GAPDH-1"])
    report = align_genes(data)
    data.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert dict(again.uns["graphfm_genes"]) == report.parameters()
    assert again.uns["graphfm_genes"]["vocabulary_version"] == V.version
    assert again.var["graphfm_gene"].dtype == np.int32


def test_duplicated_names_share_a_row():
    report = align_genes(_adata(["GAPDH", "GAPDH", "gapdh", "CD3E"]))
    assert report.table["row"].nunique() == 2
    assert report.n_duplicated == 2


def test_it_is_quick():
    vocabulary.cache_clear()
    start = time.perf_counter()
    vocabulary().rows(["GAPDH"])
    loaded = time.perf_counter()
    names = [*HUMAN["human_symbol"], *(f"RP11-{i}A1.2" for i in range(11_000))]
    align_genes(ad.AnnData(np.ones((1, len(names)), dtype=np.float32), var=pd.DataFrame(index=names)))
    assert loaded - start < 2.0
    assert time.perf_counter() - loaded < 3.0


# name: (organism, least share of genes, least share of counts), a little below what was measured
MEASURED = {
    "celltypist_sample": ("human", 0.57, 0.95),
    "citefuse_ctcl_hto500": ("human", 0.75, 0.95),
    "cosmx_nsclc_mini": ("human", 0.99, 0.94),
    "dlpfc_151673": ("human", 0.80, 0.97),
    "heart_1k_mouse": ("mouse", 0.92, 0.97),
    "her2st_labelled8": ("human", 0.98, 0.99),
    "intestine_moor_1383": ("mouse", 0.73, 0.97),
    "kang_pbmc_8684": ("human", 0.98, 0.93),
    "merfish_hypothalamus_2slices": ("mouse", 0.96, 0.99),
    "osmfish_ssctx": ("mouse", 1.0, 1.0),
    "paul15_myeloid": ("mouse", 0.98, 0.99),
    "pbmc4k_soupx_2170": ("human", 0.84, 0.93),
    "pbmc68k_reduced": ("human", 0.96, 0.98),
    "sc_mixology": ("human", 0.69, 0.81),
    "scicar_a549_rna": ("human", 0.91, 0.93),
    "st_mob_rep8": ("mouse", 0.93, 0.98),
    "st_pdac_a": ("human", 0.79, 0.73),
    "starmap_mpfc_BZ5": ("mouse", 0.96, 0.95),
    "starmap_v1_1k": ("mouse", 0.97, 0.98),
    "verafish_hippocampus": ("mouse", 0.99, 0.95),
    "xenium_mouse_brain": ("mouse", 0.98, 0.99),
    "zeisel_500": ("mouse", 0.98, 0.93),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_coverage_of_public_data(name):
    folder = os.environ.get("GRAPHFM_DATA")
    if not folder:
        pytest.skip("GRAPHFM_DATA is unset: it names the folder with the data mirror")
    data = ad.read_h5ad(Path(folder) / "h5ad" / f"{name}.h5ad")
    report = align_genes(data)
    organism, genes, counts = MEASURED[name]
    assert report.organism == organism
    assert report.n_matched / report.n_genes >= genes
    assert report.share_of_counts_matched >= counts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["celegans_embryo", "celegans_l2", "fire_jurkat_1580_lognorm", "scicar_a549_atac"])
def test_data_without_human_or_mouse_genes(name):
    folder = os.environ.get("GRAPHFM_DATA")
    if not folder:
        pytest.skip("GRAPHFM_DATA is unset: it names the folder with the data mirror")
    data = ad.read_h5ad(Path(folder) / "h5ad" / f"{name}.h5ad")
    with pytest.raises(ValueError, match="organism"):
        align_genes(data)
    assert align_genes(data, organism="other").n_outside == data.n_vars


@pytest.mark.parametrize("kind", ["counts", "log1p"])
def test_columns_of_one_gene_are_added_up(kind):
    """Human and mouse cells put together, each species in columns of its own; an old symbol beside the new one."""
    rng = np.random.default_rng(0)
    names = ["GAPDH", "MLL2", "KMT2D", "Gapdh", "Actb", "mystery"]
    counts = rng.poisson(3, size=(20, 6)).astype(np.float32)
    adata = _adata(names)
    whole = ad.AnnData(sparse.csr_matrix(np.log1p(counts) if kind == "log1p" else counts), var=adata.var)
    whole.obsm["x"] = rng.normal(size=(20, 2))
    before = whole.copy()
    merged = merge_genes(whole, kind=kind)
    assert list(merged.var_names) == ["GAPDH", "MLL2", "Actb", "mystery"]
    expected = np.stack([counts[:, [0, 3]].sum(1), counts[:, [1, 2]].sum(1), counts[:, 4], counts[:, 5]], axis=1)
    np.testing.assert_allclose(merged.X.toarray(), np.log1p(expected) if kind == "log1p" else expected, rtol=1e-5)
    assert np.array_equal(merged.obsm["x"], whole.obsm["x"]) and (whole.X != before.X).nnz == 0
    assert list(whole.var) == list(before.var)
    found = merged.uns["graphfm_genes"]
    assert [found[f"n_{name}"] for name in ("genes", "matched", "outside", "duplicated")] == [4, 3, 1, 0]
    again = merge_genes(merged, kind=kind)
    again.obsm["x"][:], again.uns["graphfm_genes"]["n_genes"] = 7, 0
    assert np.array_equal(merged.obsm["x"], whole.obsm["x"]) and found["n_genes"] == 4  # nothing is shared
    assert list(again.var_names) == list(merged.var_names) and (again.X != merged.X).nnz == 0


def test_a_copy_of_a_name_that_comes_first_is_the_gene():
    adata = ad.AnnData(np.ones((3, 4), dtype=np.float32), var=pd.DataFrame(index=["GAPDH-1", "GAPDH", "TP53", "ACTB"]))
    merged = merge_genes(adata)
    assert merged.var["graphfm_gene"].to_dict() == dict(
        zip(["GAPDH", "TP53", "ACTB"], V.rows(["GAPDH", "TP53", "ACTB"]), strict=True)
    )
    assert merged.X.toarray()[0].tolist() == [2, 1, 1]


def test_what_has_no_name_is_no_gene():
    """As text a missing name is an alias of two genes."""
    names = ["nan", "nan-1", "NaN.2", "NA", "None", "<NA>", "n/a", "GAPDH"]
    assert V.rows(names).tolist() == [-1] * 7 + [V.rows(["GAPDH"])[0]]
    assert merge_genes(_adata(names)).n_vars == 8


def test_rows_that_concat_has_filled_up_are_made_anew():
    parts = []
    for names in (["GAPDH", "TP53", "ACTB"], ["Gapdh", "Trp53", "Actb"]):
        parts.append(ad.AnnData(np.ones((3, 3), dtype=np.float32), var=pd.DataFrame(index=names)))
        align_genes(parts[-1])
    both = ad.concat(parts, join="outer", merge="first", uns_merge="first", index_unique="-", fill_value=0)
    assert both.var["graphfm_gene"].isna().any() and not is_aligned(both) and is_aligned(parts[0])
    assert sorted(merge_genes(both).var_names) == ["ACTB", "GAPDH", "TP53"]
    pp.regulatory_graph(both, tfs=["TP53"])
