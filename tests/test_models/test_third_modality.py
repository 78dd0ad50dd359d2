"""Video, a modality that the package does not have: pretraining takes it as docs/en/extend.md says."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mmmap.models import AR, MAP, HybridSimMIM, NextRegionDecoder, RegionCausalDecoder
from mmmap.models.backbones.hybrid_backbone import HybridBackbone
from mmmap.models.heads.reconstruction_head import ReconstructionHead
from mmmap.models.layers import CoordinatePositionEncoding, Tokens
from mmmap.models.reconstruction_results import Reconstruction

MASKS = 'RandomMasking', 'SequentialMasking', 'DiagonalMasking'


@dataclass(frozen=True, kw_only=True)
class VideoTokens(Tokens):
    grid: tuple[int, int, int]

    data_preprocessor = 'BaseDataPreprocessor'

    @property
    def places(self):
        return 2 * self.coords - 1

    def targets(self, inputs):
        return inputs

    def frame(self):
        return dict(grid=self.grid)


@dataclass(frozen=True, kw_only=True)
class VideoReconstruction(Reconstruction):
    grid: tuple[int, int, int]

    def clips(self):
        return self.head.unpatchify(self.pred.detach(), self.grid)


class VideoMAPHybrid(HybridBackbone):
    """Tubes of 2 frames x 4 x 4 pixels; a region is a frame of tubes."""

    token_type = VideoTokens
    out_types = ('raw',)
    embedding_names = ('patch_embed', 'pos_embed')

    def __init__(self, out_type='raw'):
        super().__init__(dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), out_type)
        self.patch_embed = nn.Conv3d(3, 16, (2, 4, 4), stride=(2, 4, 4))
        self.pos_embed = CoordinatePositionEncoding(16)

    @property
    def shapes(self):
        return dict(width=16, grid=None, patch_size=4, in_channels=3)

    def tokenize(self, inputs):
        maps = self.patch_embed(inputs)
        frames, rows, columns = grid = tuple(maps.shape[2:])
        coords = torch.cartesian_prod(*((torch.arange(n) + 0.5) / n for n in grid))
        regions = torch.arange(frames).repeat_interleave(rows * columns)
        x = maps.flatten(2).transpose(1, 2) + self.pos_embed(2 * coords - 1)
        return VideoTokens(x, coords, regions, rows * columns, grid=grid)

    def encode(self, tokens: VideoTokens, visible: Tensor | None = None, causal: bool = False):
        regions = tokens.scanned_regions if causal else None
        return self.encoder(tokens.take(tokens.embeddings, visible), causal_regions=regions)

    def check_causal(self):
        pass


class TubeReconstructionHead(ReconstructionHead):
    token_type = VideoTokens
    result_type = VideoReconstruction

    def __init__(self):
        super().__init__(16, {1: 1.0}, [2 * 4 * 4 * 3])

    def errors(self, pred, targets, factor):
        tubes = targets.unfold(2, 2, 2).unfold(3, 4, 4).unfold(4, 4, 4)
        return (pred - tubes.permute(0, 2, 3, 4, 5, 6, 7, 1).flatten(4).flatten(1, 3)).square().mean(-1)

    def unpatchify(self, pred, grid):
        tubes = pred.unflatten(1, grid).unflatten(-1, (2, 4, 4, 3))
        return tubes.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(2, 3).flatten(3, 4).flatten(4, 5)


def decoder(kind):
    return kind(16, None, embed_dim=16, depth=1, num_heads=2)


def methods():
    """Every method, MAP under every mask."""
    parts = dict(backbone=VideoMAPHybrid(), head=TubeReconstructionHead())
    for mask in MASKS:
        yield MAP(neck=decoder(RegionCausalDecoder), masking=dict(type=mask, ratio=0.5), **parts)
    yield AR(neck=decoder(NextRegionDecoder), **parts)
    yield HybridSimMIM(**parts)


@pytest.mark.parametrize('index', range(5))
def test_every_method_and_mask_takes_it(index):
    model = list(methods())[index]
    clips = torch.randn(2, 3, 8, 16, 12)
    model.loss(clips)['loss'].backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    result = model.reconstruct(clips)
    assert isinstance(result, VideoReconstruction) and result.clips().shape == clips.shape
    assert result.mask.shape == (2, 4 * 4 * 3)


def test_a_head_lays_its_own_targets_out():
    clips, head = torch.randn(1, 3, 4, 8, 8), TubeReconstructionHead()
    tubes = torch.stack(
        [
            clips[0, :, f : f + 2, r : r + 4, c : c + 4].permute(1, 2, 3, 0).flatten()
            for f in (0, 2)
            for r in (0, 4)
            for c in (0, 4)
        ]
    )[None]
    assert torch.equal(head.unpatchify(tubes, (2, 2, 2)), clips)
    assert head.errors(tubes, clips, 1).max() == 0


def test_a_head_of_another_modality_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r'head: a PixelReconstructionHead is for GridTokens.*makes VideoTokens$'):
        MAP(VideoMAPHybrid(), decoder(RegionCausalDecoder), dict(type='PixelReconstructionHead', in_channels=3))
