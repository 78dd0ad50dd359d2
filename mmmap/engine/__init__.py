from .hooks import AtomicCheckpointHook, CheckpointFitHook, KNNHook, ReconstructionHook

__all__ = ['AtomicCheckpointHook', 'CheckpointFitHook', 'KNNHook', 'ReconstructionHook']
