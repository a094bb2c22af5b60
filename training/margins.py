"""Angular margins: the loss asks for more than being nearest, so that classes stand apart on the sphere.

ArcFace: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019.
CosFace: Wang et al., "CosFace: Large Margin Cosine Loss for Deep Face Recognition", CVPR 2018.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.recipe import MarginKind

_SAFE = 1e-7
"""Keeps the derivative of sin θ = √(1 − cos²θ) finite where an embedding lies on its class's axis."""


def arcface_logits(cosines: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """scale·cos(θ_y + margin) for the true class y, scale·cos θ for the others.

    cosines: (N, C) in [−1, 1]; labels: (N,) int64; margin: radians, [0, π/2). Where θ_y + margin would pass π, and the
    cosine would rise again, it goes on falling as cos θ − sin(margin)·margin, as the authors' code has it.
    """
    cosine = cosines.gather(1, labels[:, None])
    sine = (1.0 - cosine * cosine).clamp_min(_SAFE).sqrt()
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond = cosine - math.sin(margin) * margin
    target = torch.where(cosine > math.cos(math.pi - margin), turned, beyond)
    return scale * cosines.scatter(1, labels[:, None], target)


def cosface_logits(cosines: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """scale·(cos θ_y − margin) for the true class y, scale·cos θ for the others.

    cosines: (N, C) in [−1, 1]; labels: (N,) int64; margin: on the cosine.
    """
    target = cosines.gather(1, labels[:, None]) - margin
    return scale * cosines.scatter(1, labels[:, None], target)


_LOGITS = {"arcface": arcface_logits, "cosface": cosface_logits}


class MarginHead(nn.Module):
    """One axis a class. `kernel` is (embedding_size, classes), the layout of the original pipeline's heads."""

    def __init__(
        self,
        embedding_size: int,
        classes: int,
        *,
        kind: MarginKind = "arcface",
        margin: float = 0.5,
        scale: float = 64.0,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"a head separates two classes or more, not {classes}")
        if not 0.0 <= margin < math.pi / 2 or scale <= 0:
            raise ValueError(f"margin lies in [0, π/2) and scale above 0, not {margin}, {scale}")
        self.kind: MarginKind = kind
        self.margin = margin
        self.scale = scale
        self.kernel = nn.Parameter(F.normalize(torch.randn(embedding_size, classes), dim=0))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """(N, embedding_size), of any length → (N, classes) cosines: what recognition uses, without margin."""
        product = F.normalize(embeddings, dim=1) @ F.normalize(self.kernel, dim=0)
        return product.clamp(-1.0, 1.0)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(N, embedding_size), (N,) int64 → (N, classes) logits for cross entropy."""
        return _LOGITS[self.kind](self.cosines(embeddings), labels, margin=self.margin, scale=self.scale)

    @torch.no_grad()
    def imprint(self, embeddings: Tensor, labels: Tensor) -> None:
        """Sets each class's axis to the mean of its unit embeddings: the place training would bring it to first.

        Qi, Brown, Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018.
        """
        for label in range(self.kernel.shape[1]):
            of_class = embeddings[labels == label]
            if len(of_class):
                self.kernel[:, label] = F.normalize(F.normalize(of_class, dim=1).mean(dim=0), dim=0)
