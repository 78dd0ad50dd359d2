from .hooks import AtomicCheckpointHook, CheckpointFitHook, KNNHook, ReconstructionHook
from .loops import KNNLoop
from .optimizers import LayerDecayOptimWrapperConstructor

__all__ = [
    'AtomicCheckpointHook',
    'CheckpointFitHook',
    'KNNHook',
    'KNNLoop',
    'LayerDecayOptimWrapperConstructor',
    'ReconstructionHook',
]
