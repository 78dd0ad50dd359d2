"""The head that turns decoded tokens into points and compares them with the groups of the cloud."""

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmap.registry import MODELS

from ..layers import init_linears
from ..losses.chamfer import CHAMFER_TYPES, chamfer_loss


@MODELS.register_module()
class PointReconstructionHead(BaseModule):
    """Predicts the points of each group around its centre; the loss is their Chamfer distance on the hidden groups.

    Args:
        in_dim (int): Width D of the decoded tokens. Defaults to 192.
        group_size (int): Points M of a group. Defaults to 32.
        loss_type (str): 'l2' or 'l1', see :func:`~mmmap.models.losses.chamfer.chamfer_loss`. Defaults to 'l2'.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If ``loss_type`` is unknown.
    """

    def __init__(
        self, in_dim: int = 192, group_size: int = 32, loss_type: str = 'l2', init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if loss_type not in CHAMFER_TYPES:
            raise ValueError(f'loss_type={loss_type!r}: must be one of {CHAMFER_TYPES}')
        self.loss_type = loss_type
        self.group_size = group_size
        self.proj = nn.Linear(in_dim, 3 * group_size)
        init_linears(self)

    def forward(self, decoded: Tensor) -> Tensor:
        """Predicted points (B, L, 3M), point by point, of decoded tokens (B, L, D)."""
        return self.proj(decoded)

    def to_points(self, pred: Tensor, centres: Tensor) -> Tensor:
        """Predictions (B, L, 3M) as points (B, L, M, 3) in the frame of the centres (B, L, 3)."""
        return pred.unflatten(-1, (-1, 3)) + centres[:, :, None]

    def loss(self, pred: Tensor, groups: Tensor, mask: Tensor) -> Tensor:
        """Mean distance over the hidden groups of the batch.

        Args:
            pred (Tensor): Predicted points, shape (B, L, 3M).
            groups (Tensor): Points of the groups relative to their centres, then features, shape (B, L, M, 3 + F).
            mask (Tensor): True where hidden, shape (B, L).

        Returns:
            Tensor: A scalar, in at least float32.

        Raises:
            ValueError: If the groups are not of ``group_size`` points.
        """
        if groups.shape[2] != self.group_size:
            raise ValueError(f'group_size={self.group_size}: the groups are of {groups.shape[2]} points')
        points = pred.unflatten(-1, (-1, 3)).flatten(0, 1)
        distance = chamfer_loss(points, groups[..., :3].flatten(0, 1), self.loss_type)
        hidden = mask.flatten()
        return (distance * hidden).sum() / hidden.sum()
