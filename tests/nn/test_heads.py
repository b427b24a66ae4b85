"""Count likelihood against scipy."""

import numpy as np
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphfm.nn.heads import negative_binomial_nll


@settings(max_examples=50, deadline=None)
@given(y=st.integers(0, 500), log_mean=st.floats(-12, 8), log_theta=st.floats(-4, 6))
def test_likelihood_is_scipys(y, log_mean, log_theta):
    mean, theta = np.exp(log_mean), np.exp(log_theta)
    expected = -scipy.stats.nbinom.logpmf(y, theta, theta / (theta + mean))
    mine = negative_binomial_nll(
        torch.tensor([[float(y)]], dtype=torch.float64),
        torch.tensor([[log_mean]], dtype=torch.float64),
        torch.tensor([log_theta], dtype=torch.float64),
    )
    np.testing.assert_allclose(mine.item(), expected, rtol=1e-6, atol=1e-9)
