from .hooks import AtomicCheckpointHook, CheckpointFitHook

__all__ = ['AtomicCheckpointHook', 'CheckpointFitHook']
