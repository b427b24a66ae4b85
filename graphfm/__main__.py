"""The command line ``graphfm demo | pretrain | embed | grn | rare | ...``: a thin shell around Python functions."""

import logging
import math
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["counts", "normalized", "log1p"]
Organism = Literal["auto", "human", "mouse", "other"]
# names instead of types in the help
Layer = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Column = Annotated[str | None, tyro.conf.arg(metavar="COLUMN", help_behavior_hint="")]
Number = Annotated[int | None, tyro.conf.arg(metavar="NUMBER", help_behavior_hint="")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Weights = File


def demo(out: Path = Path("demo"), *, steps: int = 300) -> None:
    """See what graphfm does: train for a minute on blood cells, write a report.

    Needs no network. Open the file it names in a browser.

    Args:
        out: Folder for the report and the trained weights.
        steps: Steps of pre-training; 300 take about a minute on two cores.
    """
    from graphfm.report import demo as run

    print(f"Report: {run(out, steps=steps)}")


def pretrain(
    data: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...", help_behavior_hint="")],
    *,
    out: Path,
    size: Literal["tiny", "small", "base"] = "small",
    steps: int = 1000,
    seed: int = 0,
    lr: float = 3e-3,
    objective: Literal["neighbor_agreement", "masked_expression"] = "neighbor_agreement",
    rarity: float = 0.0,
    start_from: Annotated[Literal["new", "shipped"] | Path, tyro.conf.arg(metavar="{new,shipped,FILE}")] = "new",
    layer: Layer = None,
    organism: Organism = "auto",
    library_key: Column = None,
    checkpoint_every: int = 100,
    parts: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None,
    device: str = "cpu",
    shard: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Train graphfm on your own cells, without labels.

    Broken off, it goes on where it was: start it again with the same settings.

    On several processes: torchrun --nproc-per-node 2 -m graphfm pretrain ...

    Args:
        data: .h5ad or .zarr files with raw counts, what graphfm.tl.prepare made of them, or a folder of such files.
        out: Folder for the trained weights (model.safetensors), the log and the state to resume from.
        size: Size of a new network: tiny for a test, small for a laptop, base for a GPU.
        steps: Optimiser steps; the learning rate falls to zero over them.
        seed: Same seed, same result.
        lr: Peak learning rate.
        objective: What is asked of the network: to say alike of a cell and its neighbours, or to tell hidden counts.
        rarity: From 0 (each cell as often) to 1 (each community of cells as often): rare cells are met more often.
        start_from: "new" for fresh weights, "shipped" to go on from those of the package, or a weights file.
        layer: Name of the layer with the raw counts, if they are not in X.
        organism: Whose genes these are; found out by itself for human and mouse.
        library_key: Column of obs that names the slide or sample, for tissue sections.
        checkpoint_every: Steps between states on disk.
        parts: Pieces of 256 cells in a batch, for processes to share; by default as many as there are processes. The
            result depends on it, and not on the number of processes.
        device: "cpu", or "cuda" for a GPU.
        shard: Spread the weights over the processes (FSDP2), for networks that do not fit into one GPU.
    """
    from graphfm import GraphFM, io, tl
    from graphfm.data.prepared import SUFFIX
    from graphfm.io.files import CELLS
    from graphfm.objectives import OBJECTIVES
    from graphfm.train import TrainConfig

    if not data:
        raise ValueError("data: name at least one .h5ad file, or a folder of them")
    files = io.cell_files(data, endings=(*CELLS, SUFFIX))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    parts = processes if parts is None else parts
    model = None if start_from == "new" else GraphFM.from_pretrained(None if start_from == "shipped" else start_from)
    tl.pretrain(
        {path.stem: path if path.suffix == SUFFIX else io.read(path, lazy=True) for path in files},
        out,
        model=model,
        size=size,
        config=TrainConfig(
            steps=steps,
            seed=seed,
            lr=lr,
            rarity=rarity,
            objective=OBJECTIVES[objective](),
            checkpoint_every=checkpoint_every,
            parts=parts,
            tiles_per_batch=4 * parts,
        ),
        layer=layer,
        organism=organism,
        library_key=library_key,
        device=device,
        shard=shard,
    )
    if _speaks():
        print(f"Weights: {out / 'model.safetensors'}")


def embed(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    model: Weights = None,
    relations: Annotated[
        tuple[Literal["knn", "spatial"], ...], tyro.conf.arg(metavar="knn|spatial...", help_behavior_hint="")
    ] = (),
    key_added: str = "X_graphfm",
    layer: Layer = None,
    kind: Kind = "counts",
    organism: Organism = "auto",
    library_key: Column = None,
    tile_size: int = 8192,
    scratch: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None,
    device: str = "cpu",
) -> None:
    """Give every cell its coordinates in the space of the trained network.

    Writes a copy of your file with obsm["X_graphfm"], for clustering or UMAP.

    Args:
        data: Your .h5ad or .zarr file.
        out: The .h5ad or .zarr file to write; not the same one.
        model: Weights of `graphfm pretrain`; by default those of the package.
        relations: Graphs to use, those in your file or else new ones; by default similar cells (knn), and neighbours
            in the tissue (spatial) where obsm["spatial"] has coordinates.
        key_added: Name of the embedding in obsm.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        organism: Whose genes these are; "other" for neither human nor mouse.
        library_key: Column of obs that names the slide, for tissue sections. Needed if the file holds several, whose
            cells would else be neighbours where their coordinates overlap.
        tile_size: Cells computed at a time; smaller needs less memory.
        scratch: A folder on a fast disk, for more cells than fit into memory.
        device: "cpu", or "cuda" for a GPU.
    """
    from graphfm import GraphFM, io, tl
    from graphfm._checks import check_device, check_key_added, check_scratch, check_tile_size

    _check_out(data, out)
    check_key_added(key_added)
    check_tile_size(tile_size)
    check_device(device)
    check_scratch(scratch, device)
    network = GraphFM.from_pretrained(model)
    adata = io.read(data, lazy=True)
    tl.build_graphs(adata, relations=relations or None, library_key=library_key, layer=layer, kind=kind)
    tl.embed(
        adata,
        network,
        key_added=key_added,
        relations=relations or None,
        layer=layer,
        kind=kind,
        organism=organism,
        tile_size=tile_size,
        scratch=scratch,
        device=device,
    )
    io.annotate(data, adata, out)
    print(f"obsm[{key_added!r}] {adata.obsm[key_added].shape} in {out}")


def grn(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    table: File = None,
    tfs: File = None,
    prior: File = None,
    known: File = None,
    zero_shot: tyro.conf.FlagCreatePairsOff[bool] = False,
    max_edges: int = 1_000_000,
    layer: Layer = None,
    kind: Kind = "counts",
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Find which transcription factor regulates which gene, with sign and confidence.

    Writes a copy of your file with uns["grn"] and the regulons' activity in cells.

    Args:
        data: Your .h5ad or .zarr file.
        out: The .h5ad or .zarr file to write; not the same one.
        table: A .csv file to write the edges to as well.
        tfs: A text file with one transcription factor a line; by default those that graphfm knows.
        prior: A .csv or .tsv file of known regulation (columns source, target and perhaps sign, weight), whose edges
            are weighed by your data.
        known: The same, to learn from: other pairs that are like these are found.
        zero_shot: Read your data beside what the package knows of the genes from other cells; with --known, learn
            beside it.
        max_edges: Strongest edges that are kept.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        seed: Of all that is drawn.
        device: "cpu", or "cuda" for a GPU.
    """
    import pandas as pd

    from graphfm import io, tl
    from graphfm._checks import check_device, check_exists
    from graphfm.models.knowledge import RegulatoryKnowledge

    _check_out(data, out, tfs, prior, known)
    check_device(device)
    if prior and (known or zero_shot):
        raise ValueError("--prior goes with neither --known nor --zero-shot. Choose one.")
    mode = "prior" if prior else "fine_tune" if known else "zero_shot" if zero_shot else "unsupervised"
    _check_table(table, data, out, tfs, prior, known)
    for file in filter(None, (tfs, prior, known)):
        check_exists(file)
    given = {
        name: pd.read_csv(file, sep=None, engine="python")
        for name, file in (("prior", prior), ("known", known))
        if file
    }
    adata = io.read(data, lazy=True)
    tl.infer_grn(
        adata,
        tfs=tfs.read_text(encoding="utf-8").split() if tfs else None,
        mode=mode,
        **given,
        model=RegulatoryKnowledge.from_pretrained() if known and zero_shot else None,
        max_edges=max_edges,
        layer=layer,
        kind=kind,
        seed=seed,
        device=device,
    )
    io.annotate(data, adata, out)
    edges = adata.uns["grn"]
    _write_table(edges, table)
    print(f"uns['grn'] {len(edges):,} edges, {edges['tf'].nunique():,} transcription factors in {out}")


def rare(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    table: File = None,
    batch_key: Column = None,
    max_fraction: float = 0.1,
    organism: Organism = "auto",
    layer: Layer = None,
    kind: Kind = "counts",
    shuffles: int = 1,
    seed: int = 0,
    device: str = "cpu",
) -> None:
    """Find small populations of cells that no abundant type explains.

    Writes a copy of your file with obs["rare_population"] and a table in uns.

    Args:
        data: Your .h5ad or .zarr file.
        out: The .h5ad or .zarr file to write; not the same one.
        table: A .csv file to write the populations to as well.
        batch_key: Column of obs that names samples, donors or runs.
        max_fraction: Largest share of the cells that is rare.
        organism: Of the genes; "other" for genes that graphfm does not know.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        shuffles: Copies of the data in which nothing is rare, to estimate false discoveries.
        seed: Of all that is drawn.
        device: "cpu", or "cuda" for a GPU.
    """
    from graphfm import io, tl
    from graphfm._checks import check_device

    _check_out(data, out)
    check_device(device)
    _check_table(table, data, out)
    adata = io.read(data, lazy=True)
    tl.find_rare(
        adata,
        batch_key=batch_key,
        max_fraction=max_fraction,
        organism=organism,
        layer=layer,
        kind=kind,
        n_shuffles=shuffles,
        seed=seed,
        device=device,
    )
    io.annotate(data, adata, out)
    found = adata.uns["rare"]
    _write_table(found, table)
    for row in found.itertuples():
        print(f"{row.population}: {row.size} cells ({100 * row.fraction:.2g} %), marked by {row.markers}")
    print(f"obs['rare_population'] {len(found)} populations, {found['size'].sum():,} of {adata.n_obs:,} cells in {out}")


def spatial(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    n_domains: Number = None,
    table: File = None,
    library_key: Column = None,
    cell_type_key: Column = None,
    spatial_key: str = "spatial",
    neighbors: int = 18,
    layer: Layer = None,
    kind: Kind = "counts",
    seed: int = 0,
) -> None:
    """Divide a tissue, or several slices of one, into domains.

    Writes a copy of your file with obs["spatial_domain"] and tables in uns.

    Args:
        data: Your .h5ad or .zarr file, with coordinates in obsm.
        out: The .h5ad or .zarr file to write; not the same one.
        n_domains: Number of domains; chosen if you do not give it.
        table: A .csv file to write the domains to as well.
        library_key: Column of obs that names the slide of each cell; domains are common to all slides.
        cell_type_key: Column of obs with cell types: find niches, obs["niche"], by these instead of by expression.
        spatial_key: Key in obsm of the coordinates.
        neighbors: Nearest cells of which the domain of a cell is judged.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        seed: Of all that is drawn.
    """
    from graphfm import io, tl

    _check_out(data, out)
    _check_table(table, data, out)
    adata = io.read(data, lazy=True)
    shared = {"library_key": library_key, "spatial_key": spatial_key, "n_neighbors": neighbors, "seed": seed}
    if cell_type_key:
        tl.niches(adata, cell_type_key=cell_type_key, n_niches=n_domains, **shared)
    else:
        tl.spatial_domains(adata, n_domains=n_domains, layer=layer, kind=kind, **shared)
    io.annotate(data, adata, out)
    key = "niche" if cell_type_key else "spatial_domain"
    found = adata.uns[key]
    _write_table(found, table)
    for row in found.itertuples(index=False):
        print(f"{row[0]}: {row.size} cells ({100 * row.fraction:.1f} %), confidence {row.confidence:.2f}")
    print(f"obs[{key!r}] {len(found)} regions of {adata.n_obs:,} cells in {out}")


def annotate(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    label_key: str,
    reference: File = None,
    table: File = None,
    unknown: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="")] = None,
    model: Weights = None,
    organism: Organism = "auto",
    reference_organism: Organism = "auto",
    layer: Layer = None,
    kind: Kind = "counts",
    reference_layer: Layer = None,
    reference_kind: Literal["same", "counts", "normalized", "log1p"] = "same",
    seed: int = 0,
) -> None:
    """Give every cell the type of the labelled cells that it is like.

    Writes a copy of your file with obs["annotation"] and a table in uns.

    Args:
        data: Your .h5ad or .zarr file.
        out: The .h5ad or .zarr file to write; not the same one.
        label_key: Column of obs with the types: of the reference, or of your file where some cells have a label.
        reference: An .h5ad or .zarr file with labelled cells.
        table: A .csv file to write the types to as well.
        unknown: Call cells unknown that are less like all types than this share of labelled cells, such as 0.05.
        model: Weights to use; by default those of the package.
        organism: Of the genes; "other" for genes that graphfm does not know.
        reference_organism: Of the reference's genes.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        reference_layer: The reference's layer, if it is another one.
        reference_kind: What its expression is; "same" as of your file.
        seed: Of all that is drawn.
    """
    from graphfm import io, tl

    _check_out(data, out, reference)
    _check_table(table, data, out, reference)
    adata = io.read(data, lazy=True)
    tl.annotate(
        adata,
        io.read(reference, lazy=True) if reference else None,
        label_key=label_key,
        model=model,
        unknown=unknown,
        layer=layer,
        kind=kind,
        organism=organism,
        reference_layer=reference_layer,
        reference_kind=None if reference_kind == "same" else reference_kind,
        reference_organism=reference_organism,
        seed=seed,
    )
    io.annotate(data, adata, out)
    found = adata.uns["annotation"]
    _write_table(found, table)
    for row in found.itertuples():
        print(f"{row.type}: {row.size} cells ({100 * row.fraction:.1f} %), confidence {row.confidence:.2f}")
    unsure = adata.n_obs - found["size"].sum()
    print(f"obs['annotation'] {adata.n_obs:,} cells, {unsure:,} of them unknown, in {out}")


def integrate(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    *,
    batch_key: str,
    table: File = None,
    model: Weights = None,
    organism: Organism = "auto",
    layer: Layer = None,
    kind: Kind = "counts",
    seed: int = 0,
) -> None:
    """Bring the cells of several batches into one embedding.

    Writes a copy of your file with obsm["X_integrated"] and a table in uns.

    Args:
        data: Your .h5ad or .zarr file.
        out: The .h5ad or .zarr file to write; not the same one.
        batch_key: Column of obs that names the batch of each cell.
        table: A .csv file to write the batches to as well.
        model: Weights to use; by default those of the package.
        organism: Of the genes; "other" for genes that graphfm does not know.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        seed: Of all that is drawn.
    """
    from graphfm import io, tl

    _check_out(data, out)
    _check_table(table, data, out)
    adata = io.read(data, lazy=True)
    tl.integrate(adata, batch_key=batch_key, model=model, organism=organism, layer=layer, kind=kind, seed=seed)
    io.annotate(data, adata, out)
    found = adata.uns["X_integrated"]
    _write_table(found, table)
    for row in found.itertuples():
        print(f"{row.batch}: {row.size} cells, {100 * row.paired:.0f} % with a counterpart in another batch")
    print(f"obsm['X_integrated'] of {adata.n_obs:,} cells in {out}")


def evaluate(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    *,
    label_key: str,
    batch_key: Column = None,
    library_key: Column = None,
    keys: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY...", help_behavior_hint="")] = (),
    table: File = None,
    model: Weights = None,
    organism: Organism = "auto",
    layer: Layer = None,
    kind: Kind = "counts",
    seed: int = 0,
    allow_seen: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Score the embedding of your labelled cells, beside principal components and two controls.

    No label is learned from, and your file is not changed.

    Args:
        data: Your .h5ad or .zarr file.
        label_key: Column of obs that says what each cell is; cells without it are left out.
        batch_key: Column of obs that names batches, to score how they mix as well.
        library_key: Column of obs that names slides.
        keys: Other embeddings in obsm to score beside.
        table: A .csv file to write the scores to as well.
        model: Weights to use; by default those of the package.
        organism: Of the genes; "other" for genes that graphfm does not know.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
        seed: Of all that is drawn.
        allow_seen: Score cells that the weights were trained on, too; scores then say nothing of new cells.
    """
    from graphfm import io, tl

    _check_table(table, data)
    scores = tl.evaluate(
        io.read(data),
        label_key=label_key,
        batch_key=batch_key,
        library_key=library_key,
        keys=keys,
        model=model,
        organism=organism,
        layer=layer,
        kind=kind,
        seed=seed,
        allow_seen=allow_seen,
    )
    _write_table(scores.rename_axis("representation").reset_index(), table)
    print(scores.round(3).to_string())


def leakage(
    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN")],
    *,
    model: Weights = None,
    organism: Organism = "auto",
    layer: Layer = None,
    kind: Kind = "counts",
) -> None:
    """Tell whether weights were trained on your cells; no score on such cells says how they do on new ones.

    Args:
        data: Your .h5ad or .zarr file.
        model: Weights to ask; by default those of the package.
        organism: Of the genes; "other" for genes that graphfm does not know.
        layer: Name of the layer with the expression, if it is not in X.
        kind: What that expression is: raw counts, normalized values, or log1p of them.
    """
    from graphfm import io, tl

    found = tl.leakage(io.read(data, lazy=True), model, layer=layer, kind=kind, organism=organism)
    if math.isnan(found.barcodes):
        print("The weights' file does not say which cells it was trained on.")
    else:
        print(f"These weights have seen {found}.")
        print(f"{100 * found.comparable:.0f} % of the cells have genes enough to be told by their profile.")


def _check_table(table: Path | None, *others: Path | None) -> None:
    """What would only fail after the work is done, or do away with a file that is read or written."""
    if not table:
        return
    if not table.parent.is_dir():
        raise OSError(f"--table: {table.parent} is no folder. Choose or create another one.")
    if table.is_dir():
        raise OSError(f"--table: {table} is a folder. Name a .csv file, such as {table / 'table.csv'}.")
    if any(_same(table, other) for other in others):
        raise ValueError(f"--table: {table} is a file of this very command. Choose another name.")


def _write_table(rows: "pd.DataFrame", table: Path | None) -> None:
    from graphfm.io.files import replacing

    if table:
        with replacing(table) as partial:
            rows.to_csv(partial, index=False)


def _same(path: Path, other: Path | None) -> bool:
    if other is None:
        return False
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


def _check_out(data: Path, out: Path, *others: Path | None) -> None:
    """What would only fail after the work is done, or do away with a file that is read."""
    from graphfm.io.files import check_apart, check_replaceable

    if out.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"OUT: {out} must end in .h5ad or .zarr")
    if any(_same(out, file) for file in (data, *others)):
        raise ValueError(f"OUT: {out} is your input file. Choose another name: graphfm does not overwrite its input.")
    try:
        for file in (data, *others):
            if file is not None:
                check_apart(file, out)
        check_replaceable(out)
    except (ValueError, OSError) as error:
        raise type(error)(f"OUT: {error}") from error
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise OSError(f"OUT: {out.parent} is no folder that can be written to. Choose or create another one.")
    if out.exists() and out.is_dir() != (out.suffix == ".zarr"):
        what = "folder" if out.is_dir() else "file"
        raise OSError(f"OUT: {out} is there, as a {what} that is no {out.suffix}. Choose another name.")


def info(
    model: Annotated[Weights, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]", help_behavior_hint="")] = None,
) -> None:
    """Tell versions, what this machine offers, and what a weights file is.

    Args:
        model: A weights file; by default the one of the package.
    """
    from graphfm.report import describe

    print(describe(model))


def _speaks() -> bool:
    """Whether this is the one of many processes (torchrun) that tells what happens."""
    return os.environ.get("RANK", "0") == "0"


def main() -> None:
    """Entry point of the console script: errors come without a stack of lines, unless GRAPHFM_DEBUG is set."""
    from graphfm.allocator import keep_freed_memory

    if not sys.warnoptions:
        # those of our dependencies, on their own affairs
        warnings.simplefilter("ignore")
    # threads that wait for each other by spinning bring two busy cores to a halt; torch is not imported yet
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO if _speaks() else logging.WARNING, format="%(message)s", stream=sys.stderr)
    for noisy in ("anndata", "scanpy", "squidpy", "fsspec", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    commands = {"demo": demo, "pretrain": pretrain, "embed": embed, "grn": grn, "rare": rare, "spatial": spatial}
    commands |= {"annotate": annotate, "integrate": integrate, "evaluate": evaluate}
    commands |= {"leakage": leakage, "info": info}
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="graphfm", description="A graph foundation model for single-cell and spatial omics."
        )
    except (ValueError, KeyError, TypeError, OSError, ArithmeticError, MemoryError) as error:
        if os.environ.get("GRAPHFM_DEBUG"):
            raise
        sys.exit(f"graphfm: {error.args[0] if isinstance(error, KeyError) else error}")
    except KeyboardInterrupt:
        sys.exit("graphfm: interrupted")


if __name__ == "__main__":
    main()
