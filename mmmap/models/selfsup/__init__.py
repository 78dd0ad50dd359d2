from .ar import AR
from .hybrid_simmim import HybridSimMIM
from .joint_map import JointMAP
from .map import MAP
from .masking import BlockMasking, DiagonalMasking, RandomMasking, SequentialMasking
from .token_pretraining import Reconstruction

__all__ = [
    'AR',
    'MAP',
    'BlockMasking',
    'DiagonalMasking',
    'HybridSimMIM',
    'JointMAP',
    'RandomMasking',
    'Reconstruction',
    'SequentialMasking',
]
