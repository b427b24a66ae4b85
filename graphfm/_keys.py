"""Every AnnData key that graphfm reads or writes, by the conventions of scanpy and squidpy."""

# obsm
X_PCA = "X_pca"
X_GRAPHFM = "X_graphfm"
X_INTEGRATED = "X_integrated"
SPATIAL = "spatial"

# varm
PCS = "PCs"

# obsp: scanpy's cell-cell graph, squidpy's tissue graph, whom a cell listens to
CONNECTIVITIES = "connectivities"
DISTANCES = "distances"
SPATIAL_CONNECTIVITIES = "spatial_connectivities"
SPATIAL_DISTANCES = "spatial_distances"
ATTENTION = "attention"

# varp: rows regulate columns
REGULATORY = "regulatory"
REGULATORY_PRIOR = "regulatory_prior"
REGULATORY_COEXPRESSION = "regulatory_coexpression"
GRN = "grn"

# var
GENE_ROW = "graphfm_gene"
IS_TF = "is_tf"

# uns
GENES = "graphfm_genes"
NEIGHBORS = "neighbors"
SPATIAL_NEIGHBORS = "spatial_neighbors"
TOY_TRUTH = "toy_truth"
