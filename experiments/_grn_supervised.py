"""Baselines that predict edges of a network from others of its edges: ``method(data, seed) -> scores [tfs, genes]``."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from _grn_methods import clr, correlation, pearson, spearman
from torch import Tensor, nn

from graphfm.tasks.grn_splits import Split


@dataclass(frozen=True, eq=False)
class Supervised:
    """What a method may see.

    Parameters
    ----------
    expression
        ``[cells, genes]``.
    genes, tfs
        Names of the columns, and of those that may regulate.
    parts
        A split; its test part is not looked at.
    """

    expression: np.ndarray
    genes: pd.Index
    tfs: pd.Index
    parts: Split

    @property
    def rows(self) -> np.ndarray:
        """Columns of the expression that may regulate."""
        return self.genes.get_indexer(self.tfs)

    def learn(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Regulator, gene (columns of the expression) and label of all pairs to learn from."""
        seen = pd.concat([self.parts.train, self.parts.validation])
        return self.genes.get_indexer(seen["tf"]), self.genes.get_indexer(seen["target"]), seen["label"].to_numpy()

    def degrees(self) -> tuple[np.ndarray, np.ndarray]:
        """Log of one more than each gene's known targets, and known regulators."""
        known = self.parts.known()
        counts = (known[end].value_counts().reindex(self.genes, fill_value=0).to_numpy() for end in ("tf", "target"))
        return tuple(np.log1p(count) for count in counts)


def tf_degree(data: Supervised, seed: int) -> np.ndarray:
    """Known targets of the regulator."""
    out, _ = data.degrees()
    return np.repeat(out[data.rows, None], len(data.genes), axis=1)


def target_degree(data: Supervised, seed: int) -> np.ndarray:
    """Known regulators of the gene."""
    _, into = data.degrees()
    return np.repeat(into[None], len(data.tfs), axis=0)


def degree_product(data: Supervised, seed: int) -> np.ndarray:
    """Both: no expression, nothing of the pair itself."""
    return tf_degree(data, seed) + target_degree(data, seed)


def pair_features(data: Supervised) -> np.ndarray:
    """Correlations of the two, their means, spreads, shares of cells and degrees, ``[tfs, genes, 15]``."""
    x, rows, shape = data.expression, data.rows, (len(data.tfs), len(data.genes))
    linear, ranked, context = (f(x, rows, 0) for f in (pearson, spearman, clr))
    out, into = data.degrees()
    of_gene = [x.mean(0), x.std(0), (x > 0).mean(0), out, into]
    columns = [linear, np.abs(linear), ranked, np.abs(ranked), np.abs(context)]
    columns += [np.broadcast_to(f[rows, None], shape) for f in of_gene] + [np.broadcast_to(f, shape) for f in of_gene]
    return np.stack(columns, axis=-1)


def logistic_regression(data: Supervised, seed: int) -> np.ndarray:
    """Logistic regression on `pair_features`, standardised; the pair's own edge is taken off its degrees."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, (tf, target, label) = pair_features(data), data.learn()
    place = pd.Series(np.arange(len(data.rows)), index=data.rows)[tf].to_numpy()
    seen = features[place, target].copy()
    for column in (8, 14):  # known targets of the regulator, known regulators of the gene
        seen[:, column] = np.log1p(np.maximum(np.expm1(seen[:, column]) - label, 0))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen, label)
    return model.decision_function(features.reshape(-1, features.shape[-1])).reshape(features.shape[:2])


class GENELink(nn.Module):
    """Two layers of graph attention on expression, two channels, a dot product (doi:10.1093/bioinformatics/btac559)."""

    def __init__(self, num_cells: int) -> None:
        super().__init__()
        from torch_geometric.nn import GATConv

        self.first = GATConv(num_cells, 128, heads=3, add_self_loops=False)
        self.second = GATConv(384, 64, heads=3, concat=False, add_self_loops=False)
        self.as_tf, self.as_target = (
            nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(), nn.Dropout(0.01), nn.Linear(32, 16), nn.LeakyReLU())
            for _ in range(2)
        )

    def forward(self, x: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Genes as regulators and as targets."""
        h = F.elu(self.second(F.elu(self.first(x, edges)), edges))
        return self.as_tf(h), self.as_target(h)


def genelink(data: Supervised, seed: int, *, epochs: int = 90, max_batches: int = 20) -> np.ndarray:
    """GENELink's architecture, trained as in its paper, but at most 20 batches an epoch (there 256 pairs each)."""
    torch.manual_seed(seed)
    x = torch.from_numpy((data.expression - data.expression.mean(0)) / np.maximum(data.expression.std(0), 1e-9))
    x = x.T.float().contiguous()
    tf, target, label = (torch.from_numpy(values) for values in data.learn())
    edges = torch.stack([tf, target])[:, label == 1]
    edges = torch.cat([edges, edges.flip(0)], dim=1).unique(dim=1)
    net = GENELink(x.shape[1])
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.99)
    for _ in range(epochs):
        for chosen in torch.randperm(len(label)).chunk(min(max_batches, -(-len(label) // 256))):
            as_tf, as_target = net(x, edges)
            logit = (as_tf[tf[chosen]] * as_target[target[chosen]]).sum(1)
            loss = F.binary_cross_entropy_with_logits(logit, label[chosen].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        as_tf, as_target = net.eval()(x, edges)
    return (as_tf[torch.from_numpy(data.rows)] @ as_target.T).numpy()


def absolute_correlation(data: Supervised, seed: int) -> np.ndarray:
    """Pearson's correlation, no edge looked at."""
    return np.abs(correlation(data.expression)[data.rows])


SUPERVISED: dict[str, Callable[[Supervised, int], np.ndarray]] = {
    "pearson": absolute_correlation,
    "tf_degree": tf_degree,
    "target_degree": target_degree,
    "degree_product": degree_product,
    "logistic_regression": logistic_regression,
    "genelink": genelink,
}
