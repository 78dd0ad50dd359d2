"""Parameters and floating-point operations of a model, by part."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmpretrain.models.selfsup import BaseSelfSupervisor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

EMBEDDING, NECK, HEAD, REST = 'embedding', 'decoder or neck', 'head', 'rest'


@dataclass(frozen=True)
class Complexity:
    """The cost of a part of a model.

    Attributes:
        parameters (int): Number of parameters.
        flops (int): Number of additions and multiplications; a multiply-add is two.
    """

    parameters: int
    flops: int


def _parts_of(name: str, module: nn.Module | None, embeddings: tuple[str, ...]) -> Mapping[str, str] | None:
    """The parts under which a module or a parameter is counted, by a piece of its name; None for those around it."""
    counted_as = getattr(module, 'counted_as', None)
    if counted_as is not None:
        return counted_as
    if name in embeddings:
        return {'': EMBEDDING}
    if name == 'neck':
        return {'': NECK}
    # Segmentors and detectors have several.
    return {'': HEAD} if name.endswith('head') and '.' not in name else None


def _part(parts: Mapping[str, str], name: str) -> str:
    return next((part for piece, part in parts.items() if piece and piece in name), parts[''])


class _Counter:
    """Counts each module of a model under the parts of the innermost module around it that names parts."""

    def __init__(self, model: nn.Module, operations: dict[str, dict]) -> None:
        self.operations = operations
        self.embeddings = tuple(f'backbone.{name}' for name in getattr(model.backbone, 'embedding_names', ()))
        self.flops: Counter[str] = Counter()
        self.parameters: Counter[str] = Counter()
        self.seen: set[int] = set()
        self._walk(type(model).__name__, '', model, {'': REST})

    def _walk(self, path: str, name: str, module: nn.Module, outer: Mapping[str, str]) -> Counter:
        """Count a module and those inside; returns all of their operations."""
        fixed = outer in ({'': NECK}, {'': HEAD}, {'': EMBEDDING})
        parts = outer if fixed else _parts_of(name, module, self.embeddings) or outer
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in self.seen:
                self.seen.add(id(parameter))
                own = parts if fixed else _parts_of(f'{name}.{key}'.lstrip('.'), None, self.embeddings) or parts
                self.parameters[_part(own, key)] += parameter.numel()
        inside: Counter = Counter()
        for key, child in module.named_children():
            inside.update(self._walk(f'{path}.{key}', f'{name}.{key}'.lstrip('.'), child, parts))
        # A module whose hooks were not called has no count of its own, but those inside have one.
        total = Counter(self.operations.get(path, {})) | inside
        for operator, count in (total - inside).items():
            self.flops[_part(parts, str(operator))] += count
        return total


def count_complexity(
    model: nn.Module, inputs: Tensor | list[Tensor], data_samples: list | None = None, mode: str = 'tensor'
) -> dict[str, Complexity]:
    """Count parameters and the operations of a forward pass, by part.

    For a pretraining model it is the forward pass of the loss, in which the encoder sees only the visible tokens, and
    for others that of ``mode``.
    Counted are matrix products, convolutions, attention and selective scans (see
    :func:`mmmap.ops.selective_scan.selective_scan_flops`), but no norms, activations and losses. Attention is counted
    as it runs on a CPU: groups of regions that are hidden are skipped.

    With model and inputs on the ``meta`` device nothing is computed, and any size takes about a second. torch's counter
    is used, as it knows the formulas of our operators. mmengine's ``get_model_complexity_info`` traces the model with
    ``torch.jit`` and skips unknown operators, such as the scans.

    Args:
        model (nn.Module): A model with a backbone. Its parameters are set to need no gradient.
        inputs (Tensor | list[Tensor]): Preprocessed inputs, on the device of the model.
        data_samples (list, optional): Their data samples, for models that need them. Defaults to None.
        mode (str): ``'tensor'``, or ``'predict'`` for models whose heads compute only then what a test does.

    Returns:
        dict[str, Complexity]: For the embedding, the parts of the blocks, the decoder or neck, the head, and the rest.
    """
    model.eval().requires_grad_(False)  # The counter's hooks fail on parameters that a module returns.
    mode = 'loss' if isinstance(model, BaseSelfSupervisor) else mode
    # The only kernel for attention that is counted on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(inputs, data_samples, mode=mode)
    counted = _Counter(model, counter.get_flop_counts())
    counted.flops[REST] += counter.get_total_flops() - sum(counted.flops.values())
    names = dict.fromkeys((EMBEDDING, *(counted.parameters | counted.flops), NECK, HEAD, REST))
    order = [name for name in names if name not in (NECK, HEAD, REST)] + [NECK, HEAD, REST]
    return {part: Complexity(counted.parameters[part], counted.flops[part]) for part in order}
