from .pixel_reconstruction_head import PixelReconstructionHead
from .point_reconstruction_head import PointReconstructionHead
from .point_seg_head import PointSegHead

__all__ = ['PixelReconstructionHead', 'PointReconstructionHead', 'PointSegHead']
