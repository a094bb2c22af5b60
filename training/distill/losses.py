"""What the student is asked for: the teacher's features, its angles, and the angles between pairs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import mse_loss


def embedding_map(size: int, teacher_size: int, seed: int) -> Tensor:
    """(size, teacher_size) float32 with orthonormal columns: it lifts the teacher's embedding and keeps every cosine.

    Q of the QR decomposition of a Gaussian matrix, signs fixed by R's diagonal (Mezzadri, 2007), so that it is the
    same on every machine for one seed. `size` must not be smaller than `teacher_size`.
    """
    if size < teacher_size:
        raise ValueError(f"no map from {teacher_size} to {size} dimensions keeps every cosine")
    gaussian = torch.randn(size, teacher_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    lifted: Tensor = (q * r.diagonal().sign()).float()
    return lifted


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error relative to the teacher's squared norm, over the whole batch: 0 is equal, 1 is as bad as zeros."""
    teacher = teacher.float()  # both may be bfloat16, which cannot hold a sum
    norm: Tensor = torch.linalg.vector_norm(teacher)
    return mse_loss(student.float(), teacher, reduction="sum") / norm.square().clamp_min(1e-12)


def relational_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs of a batch. Both (N, D) of unit length."""
    n = len(student)
    difference = student @ student.T - teacher @ teacher.T
    return difference.square().sum() / max(n * (n - 1), 1)


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part of the loss counts."""

    blocks: float = 0.0
    """Relative error of each block within a stage (second phase; 0 saves a tenth of the time)."""
    stages: float = 1.0
    """Relative error of each block that ends a stage."""
    embedding: float = 2.0
    """One minus the cosine to the teacher's embedding."""
    relations: float = 8.0
    """Squared difference of the cosines of pairs."""
    late: float = 2.0
    """Factor on `embedding` and `relations` in the last half of the second phase: features lead the way there, and
    the embedding is what counts in the end."""
