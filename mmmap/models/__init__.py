from .backbones import *  # noqa: F403
from .classifier import HybridClassifier  # noqa: F401
from .data_preprocessor import (  # noqa: F401
    ClsCropDataPreprocessor,
    PointDataPreprocessor,
    SelfSupCropDataPreprocessor,
)
from .detectors import *  # noqa: F403
from .heads import *  # noqa: F403
from .necks import *  # noqa: F403
from .segmentors import *  # noqa: F403
from .selfsup import *  # noqa: F403
