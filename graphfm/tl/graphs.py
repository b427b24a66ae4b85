"""The cell graphs that a data set lacks."""

import logging

from anndata import AnnData

from graphfm import _keys, io
from graphfm.io.files import writable
from graphfm.io.matrix import Kind

logger = logging.getLogger(__name__)


def build_graphs(
    adata: AnnData,
    *,
    relations: tuple[str, ...] | None = None,
    library_key: str | None = None,
    layer: str | None = None,
    kind: Kind = "counts",
) -> None:
    """Build the cell graphs that are missing, with default settings.

    Spots on a lattice (Visium) have many neighbours at the same distance, and the default spatial kNN picks among
    them by rounding; there, `graphfm.pp.spatial_graph` with ``kind="grid"`` is the better graph.

    Cells with fewer companions than the default number of neighbours get as many as there are.

    Parameters
    ----------
    adata
        Written to, in place.
    relations
        Default: ``"knn"``, and ``"spatial"`` where ``obsm["spatial"]`` is there.
    library_key
        Column of ``obs`` that names the slide; cells of different slides never touch.
    layer, kind
        Expression for the kNN graph.
    """
    from graphfm import pp
    from graphfm.data.prepare import check_relations, relations_of
    from graphfm.pp.knn import N_NEIGHBORS

    adata = writable(io.as_anndata(adata))
    check_relations(relations)
    if relations is None:
        relations = ("knn", "spatial") if _keys.SPATIAL in adata.obsm else ("knn",)
    missing = set(relations) - set(relations_of(adata))
    if "knn" in missing:
        pp.knn_graph(adata, n_neighbors=min(N_NEIGHBORS, adata.n_obs - 1), layer=layer, kind=kind)
    if "spatial" in missing:
        pp.spatial_graph(adata, library_key=library_key)
    elif library_key is not None and "spatial" in relations:
        logger.info("the spatial graph in adata.obsp is used as it is: library_key=%r has no effect", library_key)
