"""The head that turns decoded tokens into points and compares them with the groups of the cloud."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mmmap.ops import farthest_point_sample, gather_points
from mmmap.registry import MODELS

from ..layers import CloudTokens
from ..losses.chamfer_loss import CHAMFER_TYPES, chamfer_loss
from ..reconstruction_results import CloudReconstruction
from .reconstruction_head import ReconstructionHead, read_scales


@MODELS.register_module()
class PointReconstructionHead(ReconstructionHead):
    """Predicts the points of each group around its centre; the loss is their Chamfer distance on the hidden groups.

    Args:
        in_dim (int): Width D of the decoded tokens. In a model this and ``group_size`` default to those of the parts
            before. Defaults to 192.
        group_size (int): Points M of a group. Defaults to 32.
        loss_type (str): 'l2' or 'l1', see :func:`~mmmap.models.losses.chamfer_loss.chamfer_loss`. Defaults to 'l2'.
        scales (Sequence[tuple[int, float]]): Densities of the target, (factor, weight) each. M / factor points of a
            group are kept, by farthest point sampling, and a layer of its own predicts them. The loss is the mean over
            the scales by their weights. Factor 1, all points, must be among them. Defaults to ((1, 1.0),).
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        ValueError: If ``loss_type`` is unknown, or the scales are not as above.
    """

    takes: ClassVar[dict[str, str]] = {'in_dim': 'width', 'group_size': 'group_size'}
    token_type = CloudTokens
    result_type = CloudReconstruction

    def __init__(
        self,
        in_dim: int = 192,
        group_size: int = 32,
        loss_type: str = 'l2',
        scales: Sequence[tuple[int, float]] = ((1, 1.0),),
        init_cfg: dict | None = None,
    ) -> None:
        weights = read_scales(scales, 'group_size', group_size)
        super().__init__(in_dim, weights, [3 * (group_size // f) for f in weights], init_cfg)
        if loss_type not in CHAMFER_TYPES:
            raise ValueError(f'loss_type={loss_type!r}: must be one of {CHAMFER_TYPES}')
        self.loss_type = loss_type
        self.group_size = group_size

    def target(self, groups: Tensor, factor: int = 1) -> Tensor:
        """The target of the prediction at a scale.

        Args:
            groups (Tensor): Points of the groups relative to their centres, then features, shape (B, L, M, 3 + F).
            factor (int): The scale. Farthest points are sampled from the first on. Defaults to 1.

        Returns:
            Tensor: Points, shape (B, L, M / factor, 3).

        Raises:
            ValueError: If the groups are not of ``group_size`` points.
        """
        if groups.shape[2] != self.group_size:
            raise ValueError(f'group_size={self.group_size}: the groups are of {groups.shape[2]} points')
        points = groups[..., :3]
        if factor == 1:
            return points
        flat = points.flatten(0, 1)
        kept = farthest_point_sample(flat, self.group_size // factor)
        return gather_points(flat, kept).unflatten(0, points.shape[:2])

    def to_points(self, pred: Tensor, centres: Tensor) -> Tensor:
        """Predictions (B, L, 3M) as points (B, L, M, 3) in the frame of the centres (B, L, 3)."""
        return pred.unflatten(-1, (-1, 3)) + centres[:, :, None]

    def errors(self, pred: Tensor, targets: Tensor, factor: int) -> Tensor:
        """Chamfer distance (B, L) of predicted points (B, L, 3M / factor) to the groups, see :meth:`target`."""
        target = self.target(targets, factor)
        points = pred.unflatten(-1, (-1, 3)).flatten(0, 1)
        return chamfer_loss(points, target.flatten(0, 1), self.loss_type).view(pred.shape[:2])
