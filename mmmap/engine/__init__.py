from .hooks import (
    AtomicCheckpointHook,
    CheckpointFitHook,
    KNNHook,
    NonFiniteGuardHook,
    PreemptionHook,
    ReconstructionHook,
    ResumeHook,
)
from .loops import KNNLoop
from .optimizers import CPUAmpOptimWrapper, LayerDecayOptimWrapperConstructor

__all__ = [
    'AtomicCheckpointHook',
    'CPUAmpOptimWrapper',
    'CheckpointFitHook',
    'KNNHook',
    'KNNLoop',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteGuardHook',
    'PreemptionHook',
    'ReconstructionHook',
    'ResumeHook',
]
