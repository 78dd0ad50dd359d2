from .backbones import *  # noqa: F403
from .data_preprocessor import PointDataPreprocessor  # noqa: F401
from .heads import *  # noqa: F403
from .necks import *  # noqa: F403
from .segmentors import *  # noqa: F403
from .selfsup import *  # noqa: F403
