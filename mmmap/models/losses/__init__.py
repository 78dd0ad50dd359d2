from .chamfer import chamfer_loss

__all__ = ['chamfer_loss']
