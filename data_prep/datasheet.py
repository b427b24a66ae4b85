"""The datasheet of the corpus behind the shipped weights, after Gebru et al. (arXiv 1803.09010).

    python data_prep/datasheet.py        writes graphfm/weights/DATASHEET.md

The table comes from the registry of data sets and from the weights' own record of what they were trained on.
"""

import json
from pathlib import Path

import graphfm
from graphfm import datasets
from graphfm.io.files import replacing
from graphfm.models.checkpoint import model_metadata

PATH = Path(graphfm.__file__).parent / "weights" / "DATASHEET.md"
SHEET = """# Datasheet of the corpus of `small`

Made by `python data_prep/datasheet.py`. {cells:,} cells of {number} data sets, human {human:,} and mouse {mouse:,},
{spatial:,} of them in tissue.

## Why it was put together

To pre-train the weights in the package without anything that they are scored on: data sets that are public, small
enough for a laptop, with raw counts, a licence that allows commercial use, and without labels of cell types or
tissue.

## What is in it

| data set | what | organism | cells | genes, of these used | source | licence | cite |
|---|---|---|---:|---:|---|---|---|
{rows}

- **An instance** is a cell (or a spot of an array, several cells) with its counts, its 15 nearest cells in principal
  components, and in tissue those that touch it. Genes are used where they vary between cells, about 2,000 a data set.
- **Not all of it**: of `xenium_mouse_brain` the leftmost 10,000 of 36,362 cells, so that it does not drown the rest.
  Others as their source has them, which is a subset of the published cells for most.
- **Labels**: none are used; `scicar_a549_rna` has hours of treatment, which training does not see.
- **Errors**: counts of `scicar_a549_rna` were recovered from log-normalised values. Doublets and empty droplets were
  left as the sources have them.
- **Twins**: no profile is in two data sets, and none of the labelled data sets of Tables 0, 5 and 6 is in it (Table
  9, `experiments/table9_leakage.py`).
- **People**: cells of human donors and patients, de-identified by those who published them; no genotypes, ages or
  names. Expression of sex chromosomes' genes tells sex.

## What is missing

Most of a body: human blood, three human tumours and a tumour's cell line, an embryonic heart, gut and brain of mice
are there; no lung, liver, kidney or immune organ, no whole embryo, no Visium. Two species. Few donors, whose ancestry
is not said. A score on tissue like that in the corpus says nothing of tissue unlike it.

## What was done to it

`data_prep/` has the scripts that make the files that are made (the `source` has the others), `graphfm.datasets`
fetches each by address and checksum, `experiments/pretrain_small.py` trains on them. Genes are matched to the
vocabulary by `graphfm.genes.align_genes`; expression is log-normalised; nothing else is filtered.

## Use, and care for it

Pre-training of embeddings. Not for conclusions about the tissues in it, nor about people. The corpus is not given
away: each data set is fetched from its source, under its licence. Hashes of the cells' profiles and barcodes are in
the weights' file, to tell whether yours were among them (`tl.leakage`). Errors: as any issue of the code. What was
left out although it is unlabelled: Kang's cells and HER2 sections (their donors are in labelled sets), VeraFISH and
CosMx (no commercial use).
"""


def sheet() -> str:
    """The text."""
    rows, cells_of = [], {"human": 0, "mouse": 0, "spatial": 0}
    used = json.loads(model_metadata()["training"])["data"]
    for name, cells, genes, *_ in used:
        info = datasets.info(name)
        cells_of[info.organism] += cells
        cells_of["spatial"] += cells * (info.kind == "spatial")
        cite = f"doi:{info.citation}" if info.citation else ""
        numbers = f"{cells:,} | {info.shape[1]:,}, {genes:,}"
        rows.append(
            f"| `{name}` | {info.description} | {info.organism} | {numbers} | {info.source} | {info.licence} | {cite} |"
        )
    return SHEET.format(rows="\n".join(rows), number=len(used), cells=sum(cells for _, cells, *_ in used), **cells_of)


def main() -> None:
    """Write it."""
    with replacing(PATH) as partial:
        partial.write_text(sheet(), encoding="utf-8")
    print(PATH)


if __name__ == "__main__":
    main()
