from ..reconstruction_results import Reconstruction
from .ar import AR
from .hybrid_simmim import HybridSimMIM
from .joint_map import JointMAP
from .map import MAP
from .masking import DiagonalMasking, RandomMasking, SequentialMasking
from .token_pretraining import MaskedPretraining, TokenPretraining

__all__ = [
    'AR',
    'MAP',
    'DiagonalMasking',
    'HybridSimMIM',
    'JointMAP',
    'MaskedPretraining',
    'RandomMasking',
    'Reconstruction',
    'SequentialMasking',
    'TokenPretraining',
]
