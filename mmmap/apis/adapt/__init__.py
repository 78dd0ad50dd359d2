from .backbone_choice import Backbone, choose_backbone
from .base_config import BaseConfig, read_base
from .child_config import adapt_config

__all__ = ['Backbone', 'BaseConfig', 'adapt_config', 'choose_backbone', 'read_base']
