from .chamfer_loss import chamfer_loss

__all__ = ['chamfer_loss']
