"""Which tokens the encoder reads, and how they come back to their places."""

import pytest
import torch

from mmmap.models.layers import CloudTokens, GridTokens, grid_coords

ORDER = torch.tensor([0, 3, 1, 4, 2, 5])


def grid(order: torch.Tensor | None = None) -> GridTokens:
    embeddings = torch.randn(2, 6, 3)
    return GridTokens(embeddings, grid_coords((2, 3)), torch.arange(6) // 3, 3, order, grid=(2, 3))


@pytest.mark.parametrize('order', [None, ORDER])
def test_tokens_that_are_taken_come_back_to_their_places(order):
    tokens = grid(order)
    mask = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0]]).bool()
    visible = tokens.visible_indices(mask, 2)
    read = torch.arange(6) if order is None else order
    assert visible.tolist() == [[i for i in read.tolist() if not row[i]] for row in mask]
    shown = tokens.take(tokens.embeddings, visible)
    sequence = torch.cat([shown, torch.zeros(2, 2, 3)], dim=1)
    back = sequence.gather(1, tokens.restore_indices(visible)[..., None].expand(-1, -1, 3))
    assert torch.equal(back, tokens.embeddings.masked_fill(mask[..., None], 0))
    everything = tokens.take(tokens.embeddings)
    assert torch.equal(everything, tokens.embeddings[:, read])
    assert torch.equal(tokens.put_back(everything), tokens.embeddings)
    back = everything.gather(1, tokens.restore_indices(None)[..., None].expand(-1, -1, 3))
    assert torch.equal(back, tokens.embeddings)
    assert torch.equal(tokens.scanned_regions, tokens.region_ids[read])


def test_each_kind_has_its_own_targets_and_places():
    inputs, images = torch.rand(2, 60, 3), grid()
    clouds = CloudTokens(torch.rand(2, 4, 3), torch.rand(2, 4, 3), torch.arange(4), groups=torch.rand(2, 4, 8, 3))
    assert images.targets(inputs) is inputs
    assert clouds.targets(inputs) is clouds.groups
    torch.testing.assert_close(images.places, 2 * images.coords - 1)
    assert clouds.places is clouds.coords
    assert (images.frame(), clouds.frame()) == (dict(grid=(2, 3)), dict(coords=clouds.coords))
    with pytest.raises(TypeError, match='grid'):
        GridTokens(images.embeddings, images.coords, images.region_ids)
