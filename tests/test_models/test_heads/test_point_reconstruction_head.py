"""What the head for points predicts, and its loss."""

import pytest
import torch

from mmmap.models.heads import PointReconstructionHead


@pytest.mark.parametrize('loss_type', ['l2', 'l1'])
def test_the_loss_is_the_chamfer_distance_of_the_hidden_groups(loss_type):
    head = PointReconstructionHead(in_dim=8, group_size=5, loss_type=loss_type)
    pred = head(torch.randn(2, 4, 8))
    assert pred.shape == (2, 4, 15)
    groups, mask = torch.randn(2, 4, 5, 4), torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1]]).bool()
    ones = []
    for points, group in zip(pred[mask].view(-1, 5, 3), groups[mask][..., :3], strict=True):
        distances = torch.cdist(points, group)
        if loss_type == 'l2':
            distances = distances.square()
        ways = distances.amin(dim=1).mean() + distances.amin(dim=0).mean()
        ones.append(ways if loss_type == 'l2' else ways / 2)
    torch.testing.assert_close(head.loss(pred, groups, mask), torch.stack(ones).mean())


def test_a_perfect_prediction_has_finite_gradients():
    head = PointReconstructionHead(in_dim=8, group_size=5, loss_type='l1')
    groups = torch.randn(1, 2, 5, 3)
    pred = groups.flatten(2).requires_grad_()
    loss = head.loss(pred, groups, torch.ones(1, 2).bool())
    loss.backward()
    assert loss.item() == pytest.approx(1e-6)
    assert pred.grad.isfinite().all()


def test_points_lie_around_their_centres():
    head = PointReconstructionHead(in_dim=8, group_size=2)
    points = head.to_points(torch.arange(6.0).view(1, 1, 6), torch.tensor([[[10.0, 20, 30]]]))
    assert points.tolist() == [[[[10, 21, 32], [13, 24, 35]]]]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="loss_type='emd'"):
        PointReconstructionHead(loss_type='emd')
    head = PointReconstructionHead(in_dim=8, group_size=5)
    with pytest.raises(ValueError, match='group_size=5: the groups are of 4 points'):
        head.loss(torch.rand(1, 2, 15), torch.rand(1, 2, 4, 3), torch.ones(1, 2).bool())
