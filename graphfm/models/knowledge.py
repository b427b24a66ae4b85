"""Known regulation in a few numbers a gene, and what they and a data set say of a pair: networks of unseen cells."""

import json
import math
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import graphfm
from graphfm.models.checkpoint import commit, load_tensors, save_tensors

SHIPPED = "regulation.safetensors"
EVIDENCE = (
    "targets of the regulator",
    "regulators of the gene",
    "targets of the gene",
    "regulators of the regulator",
    "paths of three",
    "paths of three, not normalised by the two themselves",
    "context",
)
"""Of a pair, all of known regulation but the last, which is the score from expression."""
COUNTS = {"regulating": "num_targets", "regulated": "num_regulators"}
PAIRS = 2**18
"""That the head reads at a time."""


@dataclass(frozen=True)
class KnowledgeConfig:
    """How known regulation is put into numbers, and how a head learns to read them.

    Parameters
    ----------
    size
        Numbers a gene has as a regulator, and as a target.
    networks
        Kinds of networks that the head learns to predict, an output each.
    steps, lr, weight_decay
        Of AdamW, with a one-cycle rate.
    edges, non_edges
        Pairs of each network in a step.
    unknown
        Share of pairs of whose genes nothing is known in a step, so that expression alone is read too.
    """

    size: int = 64
    networks: tuple[str, ...] = ("STRING", "Non-Specific")
    steps: int = 300
    lr: float = 3e-3
    weight_decay: float = 1e-2
    edges: int = 200
    non_edges: int = 1000
    unknown: float = 0.1


@dataclass(frozen=True, eq=False)
class GeneFactors:
    r"""Each gene as a regulator and as a target, after two rounds of propagation over the graph of known regulation.

    With the known edges :math:`A`, row regulates column, and :math:`N = D_{out}^{-1/2} A D_{in}^{-1/2}` (each degree
    5 more than counted), regulator :math:`i` and gene :math:`j` are connected by paths of length three,
    :math:`(N N^\top N)_{ij}`: others that have the targets of :math:`i` regulate :math:`j`
    (doi:10.1038/s41467-019-09177-y). Its leading singular vectors are kept, so that the product of two genes' numbers
    is nearly that. The edge itself need not be known.

    Parameters
    ----------
    genes
        Rows of the vocabulary that have an edge, ascending, ``[m]``.
    regulating, regulated
        ``[m, size]``.
    num_targets, num_regulators
        Known ones, ``[m]``.
    """

    genes: Int[Tensor, " m"]
    regulating: Float[Tensor, "m size"]
    regulated: Float[Tensor, "m size"]
    num_targets: Float[Tensor, " m"]
    num_regulators: Float[Tensor, " m"]

    @classmethod
    def from_edges(cls, edges: np.ndarray, *, size: int, seed: int = 0) -> "GeneFactors":
        """Of distinct edges from a row of the vocabulary to another, ``[e, 2]``."""
        from sklearn.utils.extmath import randomized_svd

        genes, place = np.unique(edges, return_inverse=True)
        place = place.reshape(-1, 2)
        known = sp.csr_matrix((np.ones(len(place)), tuple(place.T)), shape=(len(genes), len(genes)))
        out, into = (np.asarray(known.sum(axis=axis)).ravel() for axis in (1, 0))
        normalized = sp.diags_array(1 / _length(out)) @ known @ sp.diags_array(1 / _length(into))
        left, value, right = randomized_svd(normalized.tocsr(), min(size, len(genes)), n_iter=4, random_state=seed)
        half = value**1.5
        numbers = (left * half, right.T * half, out, into)
        return cls(torch.from_numpy(genes), *(torch.from_numpy(part).float() for part in numbers))

    def evidence(self, regulators: Int[Tensor, " t"], genes: Int[Tensor, " n"]) -> Float[Tensor, "t n 6"]:
        """What is known of all pairs, as `EVIDENCE` names it; zeros for genes without an edge, and for row -1."""
        (i, has_i), (j, has_j) = self._place(regulators), self._place(genes)
        known = has_i[:, None] & has_j
        product = (self.regulating[i] @ self.regulated[j].T) * known
        out, into = self.num_targets[i] * has_i, self.num_regulators[j] * has_j
        length = _length(out)[:, None] * _length(into)
        degrees = (
            out[:, None],
            into[None],
            (self.num_targets[j] * has_j)[None],
            (self.num_regulators[i] * has_i)[:, None],
        )
        columns = [degree.log1p().expand_as(product) for degree in degrees]
        return torch.stack([*columns, (100 * product).asinh(), (10 * product * length).asinh()], dim=-1)

    def _place(self, rows: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """Where each row of the vocabulary is among the genes, and whether it is."""
        place = torch.searchsorted(self.genes, rows).clamp(max=len(self.genes) - 1)
        return place, self.genes[place] == rows


def _length(degree):
    """Square root of a degree, as if each gene had 5 more edges: few common ones are no proof."""
    return (degree + 5) ** 0.5


class KnowledgeHead(nn.Module):
    """Logit of an edge in each kind of network, from the evidence for a pair.

    Parameters
    ----------
    num_networks
        Outputs.
    dropout
        While training.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_networks: int, dropout: float = 0.3) -> None:
        super().__init__()
        size = len(EVIDENCE)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.linear = nn.Linear(size, num_networks)
        self.deep = nn.Sequential(
            nn.Linear(size, 64),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(64, 32),
            nn.ReLU(),
            nn.Linear(32, num_networks),
        )
        nn.init.zeros_(self.deep[-1].weight)

    def forward(self, evidence: Float[Tensor, "*b e"]) -> Float[Tensor, "*b k"]:
        """Logits, one a network."""
        standard = (evidence - self.mean) / self.std
        return self.linear(standard) + self.deep(standard)


@dataclass(frozen=True, eq=False)
class RegulatoryKnowledge:
    """What was pre-trained: the genes' factors, and the head that reads them beside a data set's own expression.

    Parameters
    ----------
    factors, head
        See there.
    config
        Sizes and training.
    density
        Of each kind of network the mean share of edges among the pairs that were learned from.
    vocabulary
        Version of the vocabulary whose rows the factors have.
    training
        What was learned from, and what was not seen.
    """

    factors: GeneFactors
    head: KnowledgeHead
    config: KnowledgeConfig
    density: tuple[float, ...]
    vocabulary: str
    training: dict

    @torch.no_grad()
    def probability(
        self, regulators: Int[Tensor, " t"], genes: Int[Tensor, " n"], context: Float[Tensor, "t n"]
    ) -> Float[Tensor, "t n"]:
        """Of an edge, mean over the kinds of networks, at the density of each; 0 of a gene with itself.

        Parameters
        ----------
        regulators, genes
            Rows of the vocabulary, -1 for genes outside.
        context
            Scores from expression, see `graphfm.nn.context.context_scores`.
        """
        head, probability = deepcopy(self.head).eval().to(context.device), torch.empty_like(context)
        density = torch.tensor(self.density, device=context.device)
        # edges were asked for among fewer other pairs than there are: back to the density of the known networks
        shift = torch.logit(density) + math.log(self.config.non_edges / self.config.edges)
        step = max(1, PAIRS // max(len(genes), 1))
        for start in range(0, len(regulators), step):
            block = slice(start, start + step)
            facts = self.factors.evidence(regulators[block].cpu(), genes.cpu()).to(context)
            facts = torch.cat([facts, context[block, :, None].log1p()], dim=-1)
            probability[block] = (head(facts) + shift).sigmoid().mean(dim=-1)
        same = (regulators[:, None] == genes) & (genes >= 0)
        return probability.masked_fill_(same.to(context.device), 0)

    def save_pretrained(self, path: str | Path) -> Path:
        """Write a safetensors file, the factors in half precision."""
        factors = {f"factors/{name}": getattr(self.factors, name) for name in _names(GeneFactors)}
        for name, count in COUNTS.items():  # a gene without targets has no numbers as a regulator
            factors[f"factors/{name}"] = getattr(self.factors, name)[getattr(self.factors, count) > 0].half()
        tensors = factors | {f"head/{name}": value for name, value in self.head.state_dict().items()}
        described = {
            "format": "graphfm-regulation",
            "graphfm_version": graphfm.__version__,
            "commit": commit(),
            "vocabulary": self.vocabulary,
            "density": json.dumps(self.density),
            "config": json.dumps(asdict(self.config)),
            "training": json.dumps(self.training),
        }
        return save_tensors(Path(path), tensors, described)

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None) -> "RegulatoryKnowledge":
        """Load from a file; without `path` what comes inside the package.

        Raises
        ------
        FileNotFoundError, ValueError
            No such file; truncated, or of another kind or version.

        Examples
        --------
        >>> from graphfm.models.knowledge import RegulatoryKnowledge
        >>> RegulatoryKnowledge.from_pretrained().config.networks
        ('STRING', 'Non-Specific')
        """
        if path is None:
            with as_file(files("graphfm.weights") / SHIPPED) as shipped:
                return cls.from_pretrained(shipped)
        tensors, metadata = load_tensors(Path(path))
        if metadata.get("format") != "graphfm-regulation":
            raise ValueError(
                f"{path} holds no known regulation. Pass a file written by tl.pretrain_grn's save_pretrained."
            )
        try:
            values = json.loads(metadata["config"])
            config = KnowledgeConfig(**values | {"networks": tuple(values["networks"])})
            factors = {name: tensors[f"factors/{name}"] for name in _names(GeneFactors)}
            head = KnowledgeHead(len(config.networks))
            head.load_state_dict({k.removeprefix("head/"): v for k, v in tensors.items() if k.startswith("head/")})
            described = tuple(json.loads(metadata["density"])), metadata["vocabulary"], json.loads(metadata["training"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} does not fit its config ({error}). It is of another version.") from error
        for name, count in COUNTS.items():
            stored, has = factors[name].float(), factors[count] > 0
            factors[name] = stored.new_zeros(len(has), stored.shape[1]).index_put_(
                (torch.nonzero(has).squeeze(1),), stored
            )
        return cls(GeneFactors(**factors), head.eval(), config, *described)


def _names(of: type) -> list[str]:
    return [field.name for field in fields(of)]
