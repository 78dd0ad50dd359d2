"""Segmentation of whole scenes by a segmentor of crops."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmmap.registry import MODELS
from mmmap.structures.islands import find_islands, split_islands
from mmmap.structures.scene_crops import (
    CROPS,
    cover_scene,
    draw_point_per_voxel,
    split_points,
    to_crop_frame,
    voxel_ids,
    warn_unless_metres,
)

from .batched_scoring import one_ahead, split_over_cores


@dataclass(frozen=True)
class SceneTestCfg:
    """How a scene is cut into crops for the model.

    Attributes:
        crop (str): ``'block'``, a column from floor to ceiling with a square plan, or ``'sphere'``.
        size (float): Side of the blocks or radius of the spheres, in metres, as in training.
        stride (float): Distance of the blocks; every point is within this distance of the centre of a sphere.
        num_points (int): Points of a crop. A crop with more is split at random.
        voxel_size (float, optional): The model gets one point of each voxel, and its label goes to all points of the
            voxel. None gives the model every point. As in training.
        num_votes (int): Rounds over the scene, each with other crops and other points of the voxels. Their votes are
            averaged. Defaults to 1.
        batch_size (int): Crops of a batch. Defaults to 8.
        seed (int): Seed of the random draws of each scene. Defaults to 0.
    """

    crop: str
    size: float
    stride: float
    num_points: int
    voxel_size: float | None = None
    num_votes: int = 1
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.crop not in CROPS:
            raise ValueError(f"test_cfg: crop must be 'block' or 'sphere', got {self.crop!r}")
        if not 0 < self.stride <= self.size:
            raise ValueError(
                f'test_cfg: stride={self.stride} must be from 0 to size={self.size}, or points are left out'
            )
        if min(self.num_points, self.num_votes, self.batch_size) < 1:
            raise ValueError(
                f'test_cfg: num_points={self.num_points}, num_votes={self.num_votes}, batch_size={self.batch_size}: '
                'all must be positive'
            )
        if self.voxel_size is not None and self.voxel_size <= 0:
            raise ValueError(f'test_cfg: voxel_size={self.voxel_size} must be positive, or None')


@MODELS.register_module()
class SceneSegmentor(BaseModel):
    """Train a segmentor on crops of scenes and test it on whole scenes.

    Training passes the crops of :class:`SceneCrop` on to the segmentor. A test gets whole scenes: it covers each with
    overlapping crops, in the frame of :class:`SceneCrop`, sums the segmentor's probabilities for each point, and gives
    every point the class of the largest sum. Parts of a scene far from each other, see
    :func:`~mmmap.structures.islands.find_islands`, are labelled as scenes of their own. Main memory holds the scene and
    one number for each point (or voxel) and class; the device holds ``batch_size`` crops.

    Args:
        segmentor (dict | nn.Module): Such as :class:`PointSegmentor`: mode 'loss' for crops, and mode 'tensor', from
            (B, num_points, 3 + F) to logits (B, num_points, classes).
        test_cfg (dict | SceneTestCfg): The attributes of :class:`SceneTestCfg`.
        data_preprocessor (dict | nn.Module, optional): The data preprocessor of crops and scenes. Defaults to None.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.

    Raises:
        TypeError: If ``test_cfg`` has an unknown key.
        ValueError: If a value of it is out of range.
    """

    def __init__(
        self,
        segmentor: dict | nn.Module,
        test_cfg: dict | SceneTestCfg,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.segmentor = segmentor if isinstance(segmentor, nn.Module) else MODELS.build(segmentor)
        self.test_cfg = test_cfg if isinstance(test_cfg, SceneTestCfg) else SceneTestCfg(**test_cfg)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor') -> Tensor | dict | list:
        """Losses or logits of crops, or the labels of scenes.

        Args:
            inputs (Tensor): Crops, or in mode 'predict' scenes, (B, N, 3 + F).
            data_samples (list, optional): Their data samples. Defaults to None.
            mode (str): 'loss', 'tensor' or 'predict'. Defaults to 'tensor'.

        Returns:
            Tensor | dict | list: What the segmentor gives; in mode 'predict' the data samples with
            ``pred_pts_seg.pts_semantic_mask``, (N,) int64.
        """
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return self.segmentor(inputs, data_samples, mode=mode)

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Label all points of some scenes, see mode 'predict' of :meth:`forward`; on the device of the inputs."""
        data_samples = data_samples or [BaseDataElement() for _ in inputs]
        for points, sample in zip(inputs, data_samples, strict=True):
            sample.pred_pts_seg = BaseDataElement(pts_semantic_mask=self.label_scene(points).to(points.device))
        return data_samples

    @torch.no_grad()
    def label_scene(self, points: Tensor, progress: Callable[[float], None] | None = None) -> Tensor:
        """Label all points of a scene.

        Args:
            points (Tensor): The scene, shape (N, 3 + F), on the device of the model.
            progress (Callable[[float], None], optional): Called after each batch with the share done, from 0 to 1.

        Returns:
            Tensor: A class for each point, shape (N,), int64, on the CPU.

        Raises:
            ValueError: If the segmentor's scores are not finite.
        """
        cfg = self.test_cfg
        xyz = points[:, :3].double().cpu().numpy()
        warn_unless_metres(xyz, cfg.size, 'a scene')
        islands = find_islands(xyz)
        count = len(xyz)
        # Each island has its own generator: stray points change no draw of the largest island.
        rngs = [np.random.default_rng((cfg.seed, i) if i else cfg.seed) for i in range(islands.max() + 1)]
        ids = None if cfg.voxel_size is None else voxel_ids(xyz, cfg.voxel_size, islands)
        del xyz
        votes, done = torch.empty(0), 0
        with split_over_cores(self._score, cfg.batch_size, points.device) as score:
            for vote in range(cfg.num_votes):
                # chosen[i] is the point of voxel i.
                chosen = np.arange(count) if ids is None else _draw(ids, islands, rngs)
                xyz = points[torch.from_numpy(chosen).to(points.device), :3].double().cpu().numpy()
                crops = self._crops(xyz, islands[chosen], rngs, shifted=vote > 0)
                left = np.ones(len(chosen), bool)
                for parts, scores in one_ahead(self._batches(points, chosen, crops), score):
                    if not len(votes):
                        votes = scores.new_zeros(len(chosen), scores.shape[-1])
                    votes.index_add_(0, torch.from_numpy(parts), scores.flatten(0, 1))
                    if progress is not None:
                        done += len(np.unique(parts[left[parts]]))
                        left[parts] = False
                        progress(done / (len(chosen) * cfg.num_votes))
        if not votes.isfinite().all():
            raise ValueError(f'the scores of {int((~votes.isfinite()).any(1).sum()):,} points are not finite')
        labels = votes.argmax(dim=1)
        return labels if ids is None else labels[torch.from_numpy(ids)]

    def _batches(
        self, points: Tensor, chosen: np.ndarray, crops: Iterator[tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Indices among the chosen points (batch_size * num_points,), and crops for the model."""
        while batch := list(islice(crops, self.test_cfg.batch_size)):
            parts = np.stack([part for part, _ in batch])
            crop_points = points[torch.from_numpy(chosen[parts]).to(points.device)].float()
            frames = torch.from_numpy(np.stack([frame for _, frame in batch]))
            crop_points[..., :3] = frames.to(crop_points)
            yield parts.reshape(-1), crop_points

    def _score(self, crops: Tensor) -> Tensor:
        """Probabilities (B, num_points, classes) of crops, on the CPU."""
        return self.segmentor(crops, None, mode='tensor').float().softmax(dim=-1).cpu()

    def _crops(
        self, xyz: np.ndarray, islands: np.ndarray, rngs: list[np.random.Generator], shifted: bool
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Indices (num_points,) of the points of each crop, and their coordinates (num_points, 3) in its frame."""
        cfg = self.test_cfg
        for island, rng in zip(split_islands(islands), rngs, strict=True):
            around, floor = xyz[island], xyz[island, 2].min()
            for centre, found in cover_scene(around, cfg.crop, cfg.size, cfg.stride, rng, shifted):
                for part in split_points(island[found], cfg.num_points, rng):
                    yield part, to_crop_frame(xyz[part], centre, cfg.crop, cfg.size, floor)


def _draw(ids: np.ndarray, islands: np.ndarray, rngs: list[np.random.Generator]) -> np.ndarray:
    """Indices of a point of each voxel, by voxel; those of an island follow each other."""
    parts = zip(split_islands(islands), rngs, strict=True)
    return np.concatenate([part[draw_point_per_voxel(ids[part] - ids[part].min(), rng)] for part, rng in parts])
