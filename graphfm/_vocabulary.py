"""The vocabulary's table, and the look-up of gene names in it. Public names are in `graphfm.genes`."""

import gzip
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from typing import Literal, cast

import numpy as np
import pandas as pd

from graphfm import _keys

Organism = Literal["human", "mouse"]
SPECIES: tuple[Organism, Organism] = ("human", "mouse")

_ENSEMBL = re.compile(r"(?<![A-Za-z0-9])(ENS(?:MUS)?G\d{11})(?!\d)(?:\.\d+)?(?:_PAR_Y)?", re.IGNORECASE)
_GENOME = re.compile(r"^(hg19|hg38|grch37|grch38|mm9|mm10|mm39|grcm38|grcm39)[_-]+(?=.)", re.IGNORECASE)
_R_DIGIT = re.compile(r"^X(?=\d)", re.IGNORECASE)
COPY = re.compile(r"[.-]\d+$")
_NO_NAME = re.compile(r"(nan|na|n/a|none|null|<na>)([.-]\d+)?", re.IGNORECASE)
"""What a missing name becomes as text; two are aliases of genes."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Genes that graphfm has weights for: one row per gene, shared by one-to-one orthologs.

    Attributes
    ----------
    table
        One line per row with columns ``human_id``, ``human_symbol``, ``mouse_id``, ``mouse_symbol`` (Ensembl ids have
        no version; "" where the species has no such gene), ``human_aliases``, ``mouse_aliases`` (joined by "|", each
        names one gene only), ``tf`` (bool, transcription factor by FANTOM5's list).
    version
        First 12 digits of the sha256 of the table.
    """

    table: pd.DataFrame
    version: str

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, names: Iterable[str], *, organism: Organism = "human") -> np.ndarray:
        """Rows of symbols, aliases or Ensembl ids.

        Parameters
        ----------
        names
            ``n`` names; any case, ids with or without version.
        organism
            Whose symbols and aliases are looked up first; symbols of the other species come last.

        Returns
        -------
        int32 array ``[n]``, -1 for names outside the vocabulary.
        """
        if organism not in SPECIES:
            raise ValueError(f"organism must be 'human' or 'mouse', got {organism!r}.")
        return match(list(names), organism).row

    def symbols(self, rows: Iterable[int], *, organism: Organism = "human") -> np.ndarray:
        """Symbols of rows in one species; the other species' symbol where it has none, "" for row -1.

        Returns
        -------
        Array of str objects, as long as `rows`.
        """
        if organism not in SPECIES:
            raise ValueError(f"organism must be 'human' or 'mouse', got {organism!r}.")
        mine, theirs = (self.table[f"{o}_symbol"].to_numpy(object) for o in (organism, other_species(organism)))
        index = np.asarray(list(rows), dtype=np.int64)
        return np.where(index < 0, "", np.where(mine != "", mine, theirs)[index])

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {k: i for o in SPECIES for i, k in enumerate(self.table[f"{o}_id"]) if k}

    @cached_property
    def _symbols(self) -> dict[str, dict[str, int]]:
        return {o: {k: i for i, k in enumerate(self.table[f"{o}_symbol"]) if k} for o in SPECIES}

    @cached_property
    def _folded(self) -> dict[str, dict[str, int]]:
        return {o: {k.upper(): i for k, i in self._symbols[o].items()} for o in SPECIES}

    @cached_property
    def _aliases(self) -> dict[str, dict[str, int]]:
        columns = {o: enumerate(self.table[f"{o}_aliases"]) for o in SPECIES}
        return {o: {k: i for i, text in c if text for k in text.upper().split("|")} for o, c in columns.items()}

    @cached_property
    def _human_aliases_of_mouse_genes(self) -> dict[str, int]:
        shared = (self.table["mouse_id"] != "").to_numpy()
        return {k: i for k, i in self._aliases["human"].items() if shared[i]}


@cache
def vocabulary() -> Vocabulary:
    """The vocabulary of the package, read once.

    Returns
    -------
    About 24,000 rows: 19,600 human and 21,600 mouse protein-coding genes, 17,200 of them one-to-one orthologs.

    Examples
    --------
    >>> v = vocabulary()
    >>> v.symbols(v.rows(["p53", "ENSG00000111640.15"]), organism="mouse").tolist()
    ['Trp53', 'Gapdh']
    """
    raw = gzip.decompress(resources.files("graphfm").joinpath("vocabulary.tsv.gz").read_bytes())
    lines = [line.split("\t") for line in raw.decode().splitlines()]
    table = pd.DataFrame(lines[1:], columns=lines[0])
    table["tf"] = table["tf"] == "1"
    return Vocabulary(table=table, version=hashlib.sha256(raw).hexdigest()[:12])


@dataclass(frozen=True, eq=False)
class Matched:
    """Names of one column and where they were found, in the column's order."""

    key: str
    names: list[str]
    organism: Organism
    row: np.ndarray  # int32 [n], -1 outside
    how: np.ndarray  # str objects [n]
    n_ids: int


def other_species(organism: str) -> Organism:
    """Human for mouse, mouse for human."""
    return "mouse" if organism == "human" else "human"


def _lookup(names: list[str], todo: np.ndarray, table: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `todo` whose name is in `table`, and the rows found."""
    found = np.fromiter((table.get(names[i], -1) for i in todo), dtype=np.int32, count=len(todo))
    return todo[found >= 0], found[found >= 0]


def _spellings(names: list[str]) -> Iterable[list[str]]:
    """The names, then what they may have been before R or a make-unique step changed them."""
    yield names
    present = {n.upper() for n in names}
    bases = [COPY.sub("", n) for n in names]
    yield [b if b.upper() in present else n for n, b in zip(names, bases, strict=True)]
    yield [n.replace(".", "-") for n in names]
    yield [_R_DIGIT.sub("", n) for n in names]


def _guess_organism(names: list[str], ids: list[str]) -> Organism:
    """The species with more exact matches (ids by their prefix), then with more in any case; human on a tie."""
    v = vocabulary()
    upper = [n.upper() for n in names]
    scores = {}
    for o, prefix in zip(SPECIES, ("ENSG", "ENSMUSG"), strict=True):
        exact = sum(i.startswith(prefix) for i in ids) + sum(n in v._symbols[o] for n in names)
        scores[o] = (exact, sum(n in v._folded[o] for n in upper))
    return max(SPECIES, key=scores.__getitem__)


def match(raw: list[str], organism: str, key: str = "var_names") -> Matched:
    """Rows of names; the first that knows a name decides.

    1. Ensembl id of either species, anywhere in the name;
    2. symbol of `organism` ("auto": guessed), as written, then in any case;
    3. alias of `organism`;
    4. symbol of the other species; in mouse data also an alias of a human ortholog (a former symbol as a rule);
    5. the same for other spellings (`_spellings`).
    """
    v = vocabulary()
    genomes = [m.group(1).lower() if (m := _GENOME.match(n)) else "" for n in raw]
    names = [_GENOME.sub("", n) if g else n for n, g in zip(raw, genomes, strict=True)]
    ids = [m.group(1).upper() if (m := _ENSEMBL.search(n)) else "" for n in names]
    # What stands beside an id (TXNIP_ENSG00000117289) is looked up where the id is not known, as a retired one.
    names = [_ENSEMBL.sub("", n).strip("_|.-: ") if i else n for n, i in zip(names, ids, strict=True)]
    names = ["" if _NO_NAME.fullmatch(n) else n for n in names]
    chosen = _guess_organism(names, ids) if organism == "auto" else cast(Organism, organism)
    # A genome prefix says the species gene by gene (mixed-species experiments).
    prefixed = [chosen if not g else "human" if g.startswith(("hg", "grch")) else "mouse" for g in genomes]
    species = np.array(prefixed, dtype=object)
    row = np.full(len(names), -1, dtype=np.int32)
    how = np.full(len(names), "outside", dtype=object)

    hits, found = _lookup(ids, np.arange(len(ids)), v._ids)
    of_mouse = np.array([ids[i].startswith("ENSMUSG") for i in hits], dtype=bool)
    row[hits], how[hits] = found, np.where(of_mouse == (species[hits] == "mouse"), "id", "ortholog")
    for spelling in _spellings(names):
        upper = [n.upper() for n in spelling]
        for o in SPECIES:
            steps = [
                ("symbol", spelling, v._symbols[o]),
                ("symbol", upper, v._folded[o]),
                ("alias", upper, v._aliases[o]),
                ("ortholog", upper, v._folded[other_species(o)]),
            ]
            if o == "mouse":
                steps.append(("ortholog", upper, v._human_aliases_of_mouse_genes))
            for label, texts, table in steps:
                hits, found = _lookup(texts, np.flatnonzero((row < 0) & (species == o)), table)
                row[hits], how[hits] = found, label
    return Matched(key=key, names=raw, organism=chosen, row=row, how=how, n_ids=sum(map(bool, ids)))


def has_rows(var: pd.DataFrame) -> bool:
    """Whether each gene has a row of the vocabulary, or -1."""
    return _keys.GENE_ROW in var and np.issubdtype(var[_keys.GENE_ROW].dtype, np.integer)
