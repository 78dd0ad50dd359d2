"""Base of the hybrid backbones: architectures, ``out_indices``, frozen parts and layer depths."""

from collections.abc import Sequence
from math import inf
from numbers import Integral, Real
from typing import Any, ClassVar, Generic, TypeVar

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..layers import HybridEncoder, Tokens
from ..protocols import PositionEncoding
from .weight_loading import PretrainedBackbone

TokensT = TypeVar('TokensT', bound=Tokens)


def _check_setting(key: str, value: object, kind: object, least: int) -> None:
    """Raise a ValueError if a setting of an architecture must be a number, but is not one or is out of range."""
    if kind not in (int, float):
        return
    numbers, words = (Integral, 'a whole number') if kind is int else (Real, 'a number')
    if isinstance(value, bool) or not isinstance(value, numbers) or not least <= float(value) < inf:
        raise ValueError(f'arch.{key}={value!r}: must be {words} from {least}')


class HybridBackbone(PretrainedBackbone, Generic[TokensT]):
    """A backbone with embeddings and a :class:`HybridEncoder`, ``encoder``.

    Args:
        settings (dict[str, Any]): Settings of the encoder that a subclass gives, see :meth:`resolve_arch`.
        out_type (str): What the backbone returns for each of ``out_indices``, see the subclasses.
        out_indices (int | Sequence[int]): Blocks whose output is returned, negative ones from the end. The output of a
            block is the residual stream plus its branch, ``RMSNorm(s + h)`` of :class:`HybridEncoder`, with the final
            norm of the encoder. Later blocks keep their weights, but are not computed and need no gradient. Defaults to
            -1.
        drop_path_rate (float): Stochastic depth. Defaults to 0.
        frozen_stages (int | str): -1 freezes nothing, 0 the embeddings (patches or groups, positions, registers or
            class token), k also the first k blocks, 'all' everything. Defaults to -1.
        with_cp (bool | str): Compute blocks again in the backward pass to save memory; with 'selective' all but scans
            and attention. Defaults to False.
        weight_init (str): 'mamba' or 'released', see :class:`HybridEncoder`. Defaults to 'mamba'.
        scan_backend (str): Backend of the scans, see :func:`mmmap.ops.bidirectional_scan`. Defaults to 'auto'.
        init_cfg (dict | list[dict], optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    out_types: ClassVar[tuple[str, ...]]

    #: Modules and parameters in front of the blocks. A backbone need not have all of them.
    embedding_names: ClassVar[tuple[str, ...]] = ()
    #: The tokens that :meth:`tokenize` makes.
    token_type: ClassVar[type[Tokens]]
    encoder_type: ClassVar[type[HybridEncoder]] = HybridEncoder
    #: Further whole numbers that an architecture may have, beside the options of the encoder.
    arch_extras: ClassVar[tuple[str, ...]] = ()
    pos_embed: PositionEncoding

    def __init__(
        self,
        settings: dict[str, Any],
        out_type: str,
        /,
        *,
        out_indices: int | Sequence[int] = -1,
        drop_path_rate: float = 0.0,
        frozen_stages: int | str = -1,
        with_cp: bool | str = False,
        weight_init: str = 'mamba',
        scan_backend: str = 'auto',
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if out_type not in self.out_types:
            raise ValueError(f'out_type={out_type!r}: must be one of {self.out_types}')
        self.out_type = out_type
        self.encoder = self.encoder_type(
            **settings,
            drop_path_rate=drop_path_rate,
            weight_init=weight_init,
            with_cp=with_cp,
            scan_backend=scan_backend,
        )
        self.embed_dim = self.encoder.embed_dim
        self.num_blocks = last = len(self.encoder.blocks)
        given = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        self.out_indices = tuple(i + last if i < 0 else i for i in given)
        if not given or not all(0 <= i < last for i in self.out_indices):
            raise ValueError(f'out_indices={out_indices!r}: each must name one of the {last} blocks')
        if frozen_stages == 'all':
            frozen_stages = last
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= last:
            raise ValueError(f"frozen_stages={frozen_stages!r}: must be from -1 to the {last} blocks, or 'all'")
        self.frozen_stages = frozen_stages

    @classmethod
    def resolve_arch(cls, arch: str | dict) -> dict[str, Any]:
        """Settings of a named or a custom architecture.

        Args:
            arch (str | dict): A name of ``archs``, or a dict of ``embed_dim``, ``layout`` and the options of the blocks
                in it, see :meth:`Block.options`. Options without a default must be given.

        Returns:
            dict[str, Any]: A new dict of the settings.

        Raises:
            ValueError: If the name is unknown, or a key is missing or unknown, or a value is not valid.
        """
        if isinstance(arch, str):
            if arch not in cls.archs:
                raise ValueError(f'arch={arch!r} is unknown: choose from {list(cls.archs)} or give a dict')
            return dict(cls.archs[arch])
        layout = arch.get('layout', '')
        if not isinstance(layout, str):
            raise ValueError(f'arch.layout={layout!r}: must be a string with a letter for each block')
        block_types = cls.encoder_type.block_types
        # First, as the options of such a block are unknown too.
        if set(layout) - set(block_types):
            raise ValueError(
                f'arch.layout={layout!r}: letters are {", ".join(sorted(block_types))}; a block of your own has one '
                'once custom_imports imports its file'
            )
        options = {name: option for name, option in cls.encoder_type.options().items() if name != 'scan_backend'}
        kinds = [kind for letter, kind in block_types.items() if letter in layout]
        used = {name: option for kind in kinds for name, option in kind.options().items()}
        needed = ['embed_dim', 'layout', *(name for name, option in used.items() if option.default is option.empty)]
        known = dict.fromkeys(('embed_dim', *cls.arch_extras), int) | {
            name: o.annotation for name, o in options.items()
        }
        missing = [key for key in needed if key not in arch]
        unknown = [key for key in arch if key not in known and key != 'layout']
        if missing or unknown:
            may = [key for key in known if key not in needed]
            raise ValueError(f'arch: keys missing {missing}, keys unknown {unknown}; needs {needed}, may have {may}')
        for key, value in arch.items():
            if key != 'layout':
                _check_setting(key, value, known[key], int(key in needed))
        return dict(arch)

    @property
    def shapes(self) -> dict[str, Any]:
        """Shapes that the parts behind the backbone need, see :func:`mmmap.models.build_parts.build_parts`."""
        raise NotImplementedError

    def encode(self, tokens: TokensT, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """Encode tokens in the order of the scans.

        Args:
            tokens (Tokens): The tokens that :meth:`tokenize` made.
            visible (Tensor, optional): The tokens to encode, shape (B, L_visible). None is all of them.
            causal (bool): No token sees a later region, see :meth:`HybridEncoder.forward`. Only without ``visible``,
                and for backbones that pass :meth:`check_causal`. Defaults to False.

        Returns:
            Tensor: Encoded tokens, shape (B, L_visible, C).
        """
        raise NotImplementedError

    def check_causal(self) -> None:
        """Raise a ValueError if the encoder cannot be causal along the regions."""
        raise NotImplementedError

    def position_embeddings(self, tokens: TokensT) -> Tensor:
        """The part of the embeddings that tells the positions, shape (1, L, C) or (B, L, C)."""
        return self.pos_embed.of(tokens)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rates, as mmpretrain's backbones give it.

        Args:
            param_name (str): Full name of the parameter.
            prefix (str): Prefix of the backbone's names, such as 'backbone.'. Defaults to ''.

        Returns:
            tuple[int, int]: The depth, 0 for the embeddings and i + 1 for block i, and the number of depths. Names
            without the prefix, and the final norm, have the last one.
        """
        depth = self.num_blocks + 1
        if param_name.startswith(prefix):
            parts = param_name.removeprefix(prefix).split('.')
            if parts[0] in self.embedding_names:
                depth = 0
            elif parts[:2] == ['encoder', 'blocks']:
                depth = int(parts[2]) + 1
        return depth, self.num_blocks + 2

    def _learned_tokens(self, number: int) -> nn.Parameter:
        return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, number, self.embed_dim), std=0.02))

    def _freeze(self) -> None:
        # DistributedDataParallel fails on parameters that get no gradient.
        first = max(self.out_indices) + 1
        if first < self.num_blocks:
            self.encoder.blocks[first:].requires_grad_(False)
            print_log(
                f'{type(self).__name__}: out_indices={self.out_indices} leaves out blocks {first} to '
                f'{self.num_blocks - 1}: they are not computed, and their weights are frozen',
                logger='current',
            )
        for part in self._frozen():
            part.requires_grad_(False)
        self.train(self.training)

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        if self.frozen_stages < 0:
            return []
        frozen = [getattr(self, name) for name in self.embedding_names if hasattr(self, name)]
        frozen += self.encoder.blocks[: self.frozen_stages]
        if self.frozen_stages == self.num_blocks:
            frozen += [self.encoder.drop_path, self.encoder.norm]
        return frozen

    def train(self, mode: bool = True) -> 'HybridBackbone':
        """Set the training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen():
            if isinstance(part, nn.Module):
                part.eval()
        return self
