"""Observes what passes between the backbone, the neck and the heads of a model."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseModel, revert_sync_batchnorm
from torch import Tensor, nn

from mmmap.apis.model_loading import build_model

from .crops import crop_sizes
from .samples import loads_masks, make_batch, total_loss

#: Sides in pixels of the pictures on which models are tried, at least one cell of the coarsest map. Some need more, or
#: the size of their own crops.
SIZES = dict(mmdet=(128, 256, 512), mmseg=(128, 256), mmpretrain=(64,))


@dataclass(frozen=True)
class Level:
    """A map that a part of a model puts out.

    Attributes:
        channels (int): Its channels, or those of a vector.
        stride (float): Pixels of the picture for each of its cells; 0 for a vector, which has no cells.
        used (bool): Whether the loss depends on it.
    """

    channels: int
    stride: float
    used: bool = True


@dataclass(frozen=True)
class Observed:
    """What the parts of a model put out. Each is a list of levels, or a text if it is something else.

    Attributes:
        backbone (list[Level] | str): Of the backbone.
        first_neck (list[Level] | str): Of the neck, or of the first one of several.
        neck (list[Level] | str): Of the last neck. Both are the backbone's if there is no neck.
    """

    backbone: list[Level] | str
    first_neck: list[Level] | str
    neck: list[Level] | str


def build_initialised(cfg: Config) -> BaseModel:
    """Build the model of a config, and initialise it without reading the checkpoints that it names."""
    cfg = Config(deepcopy(cfg._cfg_dict))
    _forget_checkpoints(cfg.model)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(build_model(cfg))
    # Some parameters hold what was in the memory until then.
    model.init_weights()
    model.sees_masks = loads_masks(cfg)
    if hasattr(model, 'set_epoch'):
        model.set_epoch(0)
    return model.to(get_device())


def _forget_checkpoints(part: Any) -> None:
    if isinstance(part, dict):
        if isinstance(part.get('pretrained'), str):
            part['pretrained'] = None
        inits = part.get('init_cfg')
        # Some backbones read `checkpoint` themselves, without a type.
        if any(init.get('checkpoint') for init in ([inits] if isinstance(inits, dict) else inits or [])):
            part['init_cfg'] = None
        part = list(part.values())
    for item in part if isinstance(part, (list, tuple)) else ():
        _forget_checkpoints(item)


def _tensors(output: Any) -> list[Tensor] | str:
    """The maps or vectors that a part puts out, or in words what it puts out instead."""
    items = list(output) if isinstance(output, (list, tuple)) else [output]
    for item in items:
        if item is None:
            return 'several tensors, of which some may be missing'
        if isinstance(item, (list, tuple)):
            return 'pairs of a map and class tokens' if len(item) == 2 else 'groups of tensors'
        if not isinstance(item, Tensor):
            return f'a {type(item).__name__}'
        if item.ndim not in (2, 4):
            return f'a tensor of {item.ndim} dimensions'
    return items


@contextmanager
def _watch(part: nn.Module, found: list, cut: bool) -> Iterator[None]:
    """Keep what a part puts out at its first call, with gradients; with ``cut`` none goes back into the part."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensors = _tensors(output)
        if found or isinstance(tensors, str):
            found.append(tensors)
            return None
        if not cut:
            for tensor in tensors:
                if tensor.requires_grad:
                    tensor.retain_grad()
            found.append(tensors)
            return None
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        found.append(leaves)
        # Copies, as some layers write into their input.
        copies = [leaf.clone() for leaf in leaves]
        return type(output)(copies) if isinstance(output, (list, tuple)) else copies[0]

    handle = part.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def observe_smallest(model: BaseModel, cfg: Config, scope: str) -> tuple[int, Observed]:
    """Observe a model on the smallest pictures that it takes; returns their side as well."""
    own = model.backbone.img_size if isinstance(getattr(model.backbone, 'img_size', None), int) else None
    crops = [*crop_sizes(cfg.get('train_dataloader')), own]
    sizes = [*SIZES[scope], *[size for size in crops[-2:] if size and size > SIZES[scope][0]]]
    for size in sizes[:-1]:
        # Pictures that are too small are told by many kinds of errors.
        with suppress(Exception):
            return size, observe(model, scope, size)
    return sizes[-1], observe(model, scope, sizes[-1])


def observe(model: BaseModel, scope: str, size: int, cut: bool = True) -> Observed:
    """Run one step of training without an update, and record what the parts put out.

    Args:
        model (BaseModel): A model with a backbone.
        scope (str): The package of its data samples.
        size (int): Side of the pictures in pixels.
        cut (bool): Leave the backbone out of the backward pass. Defaults to True.
    """
    neck = getattr(model, 'neck', None)
    parts = [model.backbone]
    if neck is not None:
        # A list of necks becomes a sequence of them.
        parts += [neck[0], neck] if isinstance(neck, nn.Sequential) else [neck]
    found: list[list] = [[] for _ in parts]
    with ExitStack() as stack:
        for part, calls in zip(parts, found, strict=True):
            stack.enter_context(_watch(part, calls, cut and part is model.backbone))
        padded, loss = training_loss(model, scope, (size, size))
        if loss.requires_grad:
            loss.backward()
    outputs = [_levels(calls[0], padded) if calls else 'nothing' for calls in found]
    return Observed(outputs[0], outputs[min(1, len(outputs) - 1)], outputs[-1])


def _levels(output: list[Tensor] | str, padded: tuple[int, int]) -> list[Level] | str:
    if isinstance(output, str):
        return output
    return [
        Level(
            tensor.shape[1],
            0 if tensor.ndim == 2 else 2.0 ** round(torch.tensor(padded[0] / tensor.shape[2]).log2().item()),
            tensor.grad is not None,
        )
        for tensor in output
    ]


def training_loss(model: BaseModel, scope: str, size: tuple[int, int]) -> tuple[tuple[int, int], Tensor]:
    """The loss of a generated batch, and the height and width to which its pictures were padded."""
    model.train()
    torch.manual_seed(0)
    _shrink(model.data_preprocessor, size)
    data = model.data_preprocessor(make_batch(scope, size, masks=model.sees_masks), True)
    losses = model(**data, mode='loss')
    return tuple(data['inputs'].shape[-2:]), total_loss(losses)


def predict(model: BaseModel, scope: str, size: tuple[int, int]) -> list:
    """The predictions for a generated batch."""
    model.eval()
    _shrink(model.data_preprocessor, size)
    with torch.no_grad():
        data = model.data_preprocessor(make_batch(scope, size, number=1), False)
        return model(**data, mode='predict')


def _shrink(preprocessor: Any, size: tuple[int, int]) -> None:
    """Let a data preprocessor keep the size of small pictures, where it would enlarge them to that of the data set."""
    if getattr(preprocessor, 'size', None) is not None:
        preprocessor.size = size
    if hasattr(preprocessor, 'batch_augments'):
        preprocessor.batch_augments = None
