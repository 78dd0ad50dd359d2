from ..reconstruction_results import Reconstruction
from .ar import AR
from .hybrid_simmim import HybridSimMIM
from .joint_map import JointMAP
from .map import MAP
from .masking import DiagonalMasking, RandomMasking, SequentialMasking

__all__ = [
    'AR',
    'MAP',
    'DiagonalMasking',
    'HybridSimMIM',
    'JointMAP',
    'RandomMasking',
    'Reconstruction',
    'SequentialMasking',
]
