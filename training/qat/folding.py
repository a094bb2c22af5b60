"""BatchNorm taken into the layers before training, and put back, saying nothing, into the file afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

Norm = nn.BatchNorm1d | nn.BatchNorm2d


def fold(network: nn.Module) -> None:
    """Folds each BatchNorm into the layer before it, in place; an identity stands where it stood."""
    network.eval()
    for layer_name, norm_name in list(pairs(network)):
        layer, norm = network.get_submodule(layer_name), network.get_submodule(norm_name)
        fuse = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        folded: nn.Module = fuse(layer, norm)  # type: ignore[type-var, arg-type]
        network.set_submodule(layer_name, folded)
        network.set_submodule(norm_name, nn.Identity())


@torch.no_grad()
def unfold(folded: nn.Module, fresh: nn.Module) -> None:
    """Gives `fresh`, of the same form with BatchNorm, the weights of `folded`; its BatchNorm adds the biases.

    The function is that of `folded` but for the last bit of a weight.
    """
    state = folded.state_dict()
    norms = dict(pairs(fresh))
    for name, norm_name in norms.items():
        norm = fresh.get_submodule(norm_name)
        assert isinstance(norm, Norm)
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1.0)  # type: ignore[union-attr]
        norm.weight.fill_((1.0 + norm.eps) ** 0.5)
        norm.bias.copy_(state.pop(f"{name}.bias"))
    missing, unexpected = fresh.load_state_dict(state, strict=False)
    left = [name for name in missing if name.rpartition(".")[0] not in norms.values()]
    if left or unexpected:
        raise ValueError(f"the networks differ: {left} missing, {unexpected} too many")


def pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of each layer that a BatchNorm follows, and of that BatchNorm: the one registered right behind it."""
    before = ""
    for name, module in network.named_modules():
        if isinstance(module, Norm):
            yield before, name
        if isinstance(module, nn.Conv2d | nn.Linear):
            before = name
