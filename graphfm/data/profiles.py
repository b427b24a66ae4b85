"""Genes by what they share with others over the cells."""

import numpy as np
import scipy.sparse as sp

NUM_COMPONENTS = 100
DAMPING = 10.0
"""Eigenvalue of the correlation matrix that is halved: what many genes share shall not drown what two do."""


def gene_profiles(
    expression: sp.csr_matrix, *, num_components: int = NUM_COMPONENTS, damping: float = DAMPING, seed: int = 0
) -> np.ndarray:
    r"""Leading eigenvectors of the genes' correlation matrix, with shrunken eigenvalues.

    .. math:: H = V \operatorname{diag}\sqrt{\lambda / (\lambda + c)}, \qquad V \operatorname{diag}(\lambda) V^\top
              \approx \operatorname{corr}(X)

    For a small :math:`c` the products :math:`H H^\top` tend to partial correlations, for a large one to correlations.

    Parameters
    ----------
    expression
        ``[n_cells, n_genes]``.
    num_components
        Columns; fewer where the data do not have as many.
    damping
        The eigenvalue :math:`c`.
    seed
        Of the solver's first vector.

    Returns
    -------
    float32 ``[n_genes, p]``, 0 for genes that are the same in all cells.

    Raises
    ------
    ValueError
        If there are fewer than 3 cells, or fewer than 2 genes that vary.
    """
    from sklearn.decomposition import PCA

    n_cells, n_genes = expression.shape
    if n_cells < 3:
        raise ValueError(f"A network needs at least 3 cells to tell genes apart, got n_obs={n_cells}.")
    varying = np.flatnonzero((expression.max(axis=0) != expression.min(axis=0)).toarray().ravel())
    if len(varying) < 2:
        raise ValueError(f"A network needs at least 2 genes that vary between cells, found {len(varying)}.")
    values = expression[:, varying].astype(np.float64)
    mean = np.asarray(values.mean(axis=0)).ravel()
    variance = np.asarray(values.multiply(values).mean(axis=0)).ravel() - mean**2
    # a gene that hardly varies about a large mean is lost to rounding; it then counts as constant
    scale = np.where(variance > 1e-12 * mean**2, 1 / np.sqrt(np.maximum(variance, 1e-300)), 0.0)
    pca = PCA(min(num_components, min(values.shape) - 1), svd_solver="arpack", random_state=seed)
    pca.fit(values @ sp.diags_array(scale))
    strength = pca.singular_values_**2 / n_cells
    profiles = np.zeros((n_genes, len(strength)), dtype=np.float32)
    profiles[varying] = pca.components_.T * np.sqrt(strength / (strength + damping))
    return profiles


def shuffled(expression: sp.csr_matrix, seed: int) -> sp.csr_matrix:
    """Each gene's values dealt to the cells anew: the same genes, nothing shared."""
    rng, columns = np.random.default_rng(seed), expression.tocsc()
    rows = np.empty_like(columns.indices)
    for start, stop in zip(columns.indptr, columns.indptr[1:], strict=False):
        rows[start:stop] = rng.choice(expression.shape[0], stop - start, replace=False)
    return sp.csc_matrix((columns.data, rows, columns.indptr), shape=expression.shape).tocsr()
