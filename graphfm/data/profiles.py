"""Genes by what they share with others over the cells."""

import numpy as np
import scipy.sparse as sp

NUM_COMPONENTS = 100
DAMPING = 10.0
"""Eigenvalue of the correlation matrix that is halved: what many genes share shall not drown what two do."""


def gene_profiles(
    expression: sp.csr_matrix | sp.csc_matrix,
    *,
    num_components: int = NUM_COMPONENTS,
    damping: float = DAMPING,
    seed: int = 0,
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

    n_cells = expression.shape[0]
    if n_cells < 3:
        raise ValueError(f"A network needs at least 3 cells to tell genes apart, got n_obs={n_cells}.")
    mean, variance = moments(expression)
    # a gene that hardly varies about a large mean is lost to rounding; it then counts as constant
    varying = variance > 1e-10 * mean**2
    number = int(varying.sum())
    if number < 2:
        raise ValueError(f"A network needs at least 2 genes that vary between cells, found {number}.")
    scale = np.where(varying, 1 / np.sqrt(np.where(varying, variance, 1)), 0).astype(np.float32)
    pca = PCA(min(num_components, n_cells - 1, number - 1), svd_solver="arpack", random_state=seed)
    pca.fit(_rescaled(expression, scale))
    strength = pca.singular_values_**2 / n_cells
    profiles = pca.components_.T * np.sqrt(strength / (strength + damping))
    return np.ascontiguousarray(profiles * varying[:, None], dtype=np.float32)


def moments(expression: sp.csr_matrix | sp.csc_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each gene over the cells, float64 ``[n_genes]``."""
    from sklearn.utils.sparsefuncs import mean_variance_axis

    mean, variance = mean_variance_axis(expression, axis=0)
    return mean.astype(np.float64), variance.astype(np.float64)


def gene_statistics(expression: sp.csr_matrix) -> np.ndarray:
    """Mean, share of cells without, and log dispersion of each gene, standardised over the genes, ``[n_genes, 3]``."""
    mean, variance = moments(expression)
    share = 1 - np.bincount(expression.indices, minlength=expression.shape[1]) / expression.shape[0]
    table = np.stack([mean, share, np.log1p(variance / np.maximum(mean, 1e-6))], axis=1)
    return ((table - table.mean(0)) / np.maximum(table.std(0), 1e-6)).astype(np.float32)


def _rescaled(expression: sp.csr_matrix | sp.csc_matrix, scale: np.ndarray) -> sp.csr_matrix | sp.csc_matrix:
    """Genes times their scale, with the places of the entries shared."""
    of_entry = scale[expression.indices] if expression.format == "csr" else np.repeat(scale, np.diff(expression.indptr))
    return type(expression)((expression.data * of_entry, expression.indices, expression.indptr), expression.shape)


def shuffled(expression: sp.csr_matrix, seed: int) -> sp.csc_matrix:
    """Each gene's values dealt to the cells anew: the same genes, nothing shared."""
    rng, columns = np.random.default_rng(seed), expression.tocsc()
    for start, stop in zip(columns.indptr, columns.indptr[1:], strict=False):
        columns.indices[start:stop] = rng.choice(expression.shape[0], stop - start, replace=False)
    columns.has_sorted_indices = False
    return columns
