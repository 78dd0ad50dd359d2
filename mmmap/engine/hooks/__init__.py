from .atomic_checkpoint_hook import AtomicCheckpointHook
from .checkpoint_fit_hook import CheckpointFitHook
from .class_names_hook import ClassNamesHook
from .compile_hook import CompileHook
from .dense_check_hook import DenseCheckHook
from .knn_hook import KNNHook
from .non_finite_guard_hook import NonFiniteGuardHook
from .point_reconstruction_hook import PointReconstructionHook
from .point_seg_visualization_hook import PointSegVisualizationHook
from .preemption_hook import PreemptionHook
from .reconstruction_hook import ReconstructionHook
from .resume_hook import ResumeHook
from .scene_submission_hook import SceneSubmissionHook
from .side_product_hook import SideProductHook

__all__ = [
    'AtomicCheckpointHook',
    'CheckpointFitHook',
    'ClassNamesHook',
    'CompileHook',
    'DenseCheckHook',
    'KNNHook',
    'NonFiniteGuardHook',
    'PointReconstructionHook',
    'PointSegVisualizationHook',
    'PreemptionHook',
    'ReconstructionHook',
    'ResumeHook',
    'SceneSubmissionHook',
    'SideProductHook',
]
