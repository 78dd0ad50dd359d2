from .pixel_reconstruction_head import PixelReconstructionHead
from .point_seg_head import PointSegHead

__all__ = ['PixelReconstructionHead', 'PointSegHead']
