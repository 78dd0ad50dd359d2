from .pixel_reconstruction_head import PixelReconstructionHead
from .point_reconstruction_head import PointReconstructionHead

__all__ = ['PixelReconstructionHead', 'PointReconstructionHead']
