from .map import MAP, Reconstruction
from .masking import DiagonalMasking, RandomMasking, SequentialMasking

__all__ = ['MAP', 'DiagonalMasking', 'RandomMasking', 'Reconstruction', 'SequentialMasking']
