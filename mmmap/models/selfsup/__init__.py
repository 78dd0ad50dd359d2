from .ar import AR
from .hybrid_simmim import HybridSimMIM
from .map import MAP
from .masking import DiagonalMasking, RandomMasking, SequentialMasking
from .token_pretraining import Reconstruction

__all__ = [
    'AR',
    'MAP',
    'DiagonalMasking',
    'HybridSimMIM',
    'RandomMasking',
    'Reconstruction',
    'SequentialMasking',
]
