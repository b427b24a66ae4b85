"""HER2-positive breast cancer, Spatial Transcriptomics, 36 sections of eight patients.

    python data_prep/her2st.py [her2st_labelled8 her2st_unlabelled28]

Genes: the union over the 36 sections, those in at least 10 spots of all sections together (so both files have the same
genes). ``obsm["spatial"]`` is the array position, ``pixel_x`` and ``pixel_y`` come from the spot files.
The repository has no licence file: read the paper's terms before you redistribute.
"""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from _tidy import Fetch, Recipe, github, run, tidy

COUNTS_COMMIT = "e75e5c53a994726a8ad251aaf653a02d7932eb6a"
SPOTS_COMMIT = "9f2260c6aa8347996955d53f0a5f06ac14c93470"
SECTIONS = [f"{patient}{number}" for patient, last in zip("ABCDEFGH", (6, 6, 6, 6, 3, 3, 3, 3), strict=True)
            for number in range(1, last + 1)]  # fmt: skip
LABELLED = ["A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1"]
MIN_SPOTS = 10


def _url(commit: str, path: str) -> str:
    return github("almaan/her2st", commit, f"data/{path}")


def convert_section(section: str, counts: Path, spots: Path, labels: Path | None) -> ad.AnnData:
    """One section: counts (spots x genes, named ``<x>x<y>``), spot positions, regions where a pathologist drew them."""
    table = pd.read_csv(counts, sep="\t", index_col=0)
    position = pd.read_csv(spots, sep="\t")
    position.index = position["x"].astype(str) + "x" + position["y"].astype(str)
    table = table[table.index.isin(position.index)].sort_index()
    position = position.loc[table.index]
    region = pd.Series("NA", index=table.index)
    if labels is not None:
        drawn = pd.read_csv(labels, sep="\t").dropna(subset=["x", "y"])
        # the label files hold the fitted position: the array position is the nearest integer
        names = drawn["x"].round().astype(int).astype(str) + "x" + drawn["y"].round().astype(int).astype(str)
        region = pd.Series(drawn["label"].to_numpy(), index=names).groupby(level=0).first().reindex(table.index)
        region = region.fillna("undetermined")
    return tidy(
        table.to_numpy(),
        cells=[f"{section}_{name}" for name in table.index],
        genes=table.columns,
        obs={
            "section": [section] * len(table),
            "patient": [section[0]] * len(table),
            "region": region,
            "pixel_x": position["pixel_x"].to_numpy(float),
            "pixel_y": position["pixel_y"].to_numpy(float),
        },
        spatial=position[["x", "y"]].to_numpy(),
    )


def join(sections: list[ad.AnnData], *, min_spots: int = MIN_SPOTS) -> ad.AnnData:
    """All sections over the union of their genes, without genes in fewer than ``min_spots`` spots."""
    whole = ad.concat(sections, join="outer", fill_value=0)
    whole = whole[:, np.sort(whole.var_names)]
    spots = np.asarray((whole.X > 0).sum(axis=0)).ravel()
    whole = whole[:, spots >= min_spots].copy()
    whole.X = whole.X.tocsr()
    whole.X.eliminate_zeros()
    whole.uns["is_raw_counts"] = True
    return whole


def _whole(fetch: Fetch) -> ad.AnnData:
    sections = []
    for name in SECTIONS:
        labels = fetch(_url(SPOTS_COMMIT, f"ST-pat/lbl/{name}_labeled_coordinates.tsv")) if name in LABELLED else None
        counts = fetch(_url(COUNTS_COMMIT, f"ST-cnts/{name}.tsv.gz"))
        spots = fetch(_url(SPOTS_COMMIT, f"ST-spotfiles/{name}_selection.tsv"))
        sections.append(convert_section(name, counts, spots, labels))
    return join(sections)


def _part(*, labelled: bool) -> Recipe:
    def recipe(fetch: Fetch) -> ad.AnnData:
        whole = _whole(fetch)
        part = whole[whole.obs["section"].isin(LABELLED) == labelled].copy()
        for column in ("section", "patient", "region"):
            part.obs[column] = part.obs[column].astype(str).astype("category")
        return part

    return recipe


RECIPES: dict[str, Recipe] = {"her2st_labelled8": _part(labelled=True), "her2st_unlabelled28": _part(labelled=False)}

if __name__ == "__main__":
    run(RECIPES, script=__file__, version=1)
