"""Parameters and floating-point operations of a model, by part."""

from collections import Counter
from dataclasses import dataclass

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmmap.models.layers import MambaMixer, TransformerBlock

EMBEDDING, TRANSFORMER, NECK, HEAD, REST = 'embedding', 'Transformer blocks', 'decoder or neck', 'head', 'rest'
PROJECTIONS, CONVOLUTION, SCAN = 'Mamba: projections', 'Mamba: convolution', 'Mamba: scan'
PARTS = (EMBEDDING, PROJECTIONS, CONVOLUTION, SCAN, TRANSFORMER, NECK, HEAD, REST)
# Parameters and operators of a mixer that are not of its projections, by a piece of their names.
_MIXER_PIECES = {'conv': CONVOLUTION, 'A_log': SCAN, 'D': SCAN, 'scan': SCAN}


@dataclass(frozen=True)
class Complexity:
    """What :func:`count_complexity` counts.

    Attributes:
        parameters (int): Parameters.
        flops (int): Additions and multiplications, so that a multiply-add is two.
    """

    parameters: int
    flops: int


def _part_of(name: str, module: nn.Module | None, embeddings: tuple[str, ...]) -> str | None:
    """The part that a module, or a parameter by itself, belongs to with all below it; None if that is not decided."""
    if isinstance(module, MambaMixer):
        return PROJECTIONS
    if isinstance(module, TransformerBlock):
        return TRANSFORMER
    if name in embeddings:
        return EMBEDDING
    if name == 'neck':
        return NECK
    # Segmentors and detectors have several.
    return HEAD if name.endswith('head') and '.' not in name else None


def _embeddings(model: nn.Module) -> tuple[str, ...]:
    return tuple(f'backbone.{name}' for name in getattr(model.backbone, 'embedding_names', ()))


def _of_mixer(name: str) -> str:
    return next((part for piece, part in _MIXER_PIECES.items() if piece in name), PROJECTIONS)


def _outermost_parts(model: nn.Module) -> dict[str, str]:
    """The part of each module that belongs to one, those inside it left out."""
    owners, embeddings = {}, _embeddings(model)
    for name, module in model.named_modules():  # Parents come first.
        parents = name.split('.')
        if not any('.'.join(parents[:i]) in owners for i in range(1, len(parents))):
            part = _part_of(name, module, embeddings)
            if part is not None:
                owners[name] = part
    return owners


def _count_parameters(model: nn.Module, owners: dict[str, str]) -> Counter:
    counts, embeddings = Counter(), _embeddings(model)
    for name, parameter in model.named_parameters():
        pieces = name.split('.')
        owner = next((o for i in range(1, len(pieces)) if (o := '.'.join(pieces[:i])) in owners), None)
        part = owners[owner] if owner else _part_of(name, None, embeddings) or REST
        counts[_of_mixer(pieces[-1]) if part == PROJECTIONS else part] += parameter.numel()
    return counts


def _within(counted: dict[str, dict], name: str, module: nn.Module) -> dict:
    """The operations of a module; of one whose forward was called past its hooks, those of the modules in it."""
    if name in counted:
        return counted[name]
    total = Counter()
    for child, inner in module.named_children():
        total.update(_within(counted, f'{name}.{child}', inner))
    return total


def count_complexity(
    model: nn.Module, inputs: Tensor | list[Tensor], data_samples: list | None = None
) -> dict[str, Complexity]:
    """Count parameters and the operations of a forward pass, by part.

    Of a pretraining model it is the pass that gives the loss, in which the encoder sees the visible tokens only; of
    another the one that gives the output. Counted are matrix products, convolutions, attention and the selective scans
    (see :func:`mmmap.ops.selective_scan.selective_scan_flops`), not norms, activations and losses. Attention counts as
    it runs on a CPU: what the decoder's rule hides is skipped by whole groups of regions.

    torch's counter is taken, as the operators of :mod:`mmmap.ops` have registered their formulas there and it works
    without computing: with model and inputs on the ``meta`` device any size takes about a second. mmengine's
    ``get_model_complexity_info`` traces the model with ``torch.jit`` and passes over operators that it does not know,
    the scans among them.

    Args:
        model (nn.Module): A model with a backbone; its parameters are set to need no gradient.
        inputs (Tensor | list[Tensor]): Preprocessed inputs, on the device of the model.
        data_samples (list, optional): Their data samples, for models that do not do without. Defaults to None.

    Returns:
        dict[str, Complexity]: For each of ``PARTS``.
    """
    model.eval().requires_grad_(False)  # The counter's hooks stumble over parameters that a module returns.
    mode = 'loss' if isinstance(model, BaseSelfSupervisor) else 'tensor'
    # Of the kernels for attention this one is counted on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(inputs, data_samples, mode=mode)
    counted = counter.get_flop_counts()
    owners = _outermost_parts(model)
    flops = Counter()
    for owner, part in owners.items():
        for op, n in _within(counted, f'{type(model).__name__}.{owner}', model.get_submodule(owner)).items():
            flops[_of_mixer(str(op)) if part == PROJECTIONS else part] += n
    flops[REST] = counter.get_total_flops() - sum(flops.values())
    parameters = _count_parameters(model, owners)
    return {part: Complexity(parameters[part], flops[part]) for part in PARTS}
