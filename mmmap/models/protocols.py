"""Protocols of the backbone, the decoder (neck) and the head of a pretraining model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn
from typing_extensions import get_protocol_members

from .layers import HybridEncoder, Tokens

if TYPE_CHECKING:
    from .reconstruction_results import Reconstruction


class Part(Protocol):
    """A part of a model that :func:`~mmmap.models.build_parts.build_parts` connects. Both attributes are optional.

    Attributes:
        takes (Mapping[str, str]): For each argument that has a default in a model, the shape that it takes.
        shapes (Mapping[str, Any]): Shapes that the part gives to those behind it, such as ``dict(width=192)``.
    """

    takes: ClassVar[Mapping[str, str]]
    shapes: Mapping[str, Any]


class Backbone(Protocol):
    """A backbone, such as ``MAPHybrid`` and ``PointMAPHybrid``.

    Attributes:
        token_type (type[Tokens]): The kind of tokens that it makes.
        embed_dim (int): Their width C.
    """

    token_type: ClassVar[type[Tokens]]
    embed_dim: int

    def tokenize(self, inputs: Tensor) -> Tokens:
        """Embed a batch of inputs, positions included."""

    def encode(self, tokens: Tokens, visible: Tensor | None = None, causal: bool = False) -> Tensor:
        """Encode all tokens, or the visible ones (B, L_visible), to (B, L_visible, C) in the order of the scans."""

    def position_embeddings(self, tokens: Tokens) -> Tensor:
        """The part of the embeddings that tells the positions, shape (1, L, C) or (B, L, C)."""

    def check_causal(self) -> None:
        """Raise a ValueError if ``encode`` cannot be causal along the regions."""


class SharedBackbone(Backbone, Protocol):
    """A backbone whose encoder, and maybe position encoding, another one can share, as in ``JointMAP``."""

    encoder: HybridEncoder
    pos_embed: nn.Module


class PositionEncoding(Protocol):
    """Positions that a decoder adds to its tokens."""

    def of(self, tokens: Any) -> Tensor:
        """A vector of each token of one kind, shape (1, L, C), (L, C) or (B, L, C)."""


class Decoder(Protocol):
    """A decoder, such as ``RegionCausalDecoder``.

    Two class attributes are optional: ``token_type``, the only kind of tokens that it can decode, and
    ``predicts_ahead``, true if no token reaches the prediction of its own region, as ``AR`` needs.
    """

    def __call__(self, latent: Tensor, visible: Tensor | None, tokens: Tokens) -> Tensor:
        """Decode all tokens, see :meth:`mmmap.models.necks.token_decoder.TokenDecoder.forward`."""


class Head(Protocol):
    """A head of pretraining, such as ``PixelReconstructionHead``. Its inputs and outputs: see ``ReconstructionHead``.

    Attributes:
        token_type (type[Tokens]): The kind of tokens whose inputs it predicts.
        result_type (type[Reconstruction]): The kind of result that holds its predictions.
    """

    token_type: ClassVar[type[Tokens]]
    result_type: 'ClassVar[type[Reconstruction]]'

    def __call__(self, decoded: Tensor) -> Tensor:
        """Predictions (B, L, P) of decoded tokens (B, L, D)."""

    def full_resolution(self, pred: Tensor) -> Tensor:
        """The predictions at full resolution."""

    def losses(self, pred: Tensor, targets: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """``loss`` over the tokens of the mask (B, L), and values to log."""


class ImageHead(Head, Protocol):
    """A head for images."""

    def to_images(self, pred: Tensor, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Predictions (B, L, P) as images (B, c, H, W)."""


class CloudHead(Head, Protocol):
    """A head for clouds."""

    def to_points(self, pred: Tensor, centres: Tensor) -> Tensor:
        """Predictions (B, L, 3M) as points (B, L, M, 3)."""


def check_part(name: str, part: nn.Module, protocol: type) -> None:
    """Raise a TypeError that names the missing attributes if a part of a model does not follow a protocol."""
    missing = sorted(member for member in get_protocol_members(protocol) if not hasattr(part, member))
    if missing:
        raise TypeError(
            f'{name}: a {type(part).__name__} cannot be pretrained, as it has no {", ".join(missing)}; see '
            f'{protocol.__module__}.{protocol.__name__}'
        )
