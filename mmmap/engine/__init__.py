from .hooks import (
    AtomicCheckpointHook,
    CheckpointFitHook,
    DenseCheckHook,
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
    'DenseCheckHook',
    'KNNHook',
    'KNNLoop',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteGuardHook',
    'PreemptionHook',
    'ReconstructionHook',
    'ResumeHook',
]
