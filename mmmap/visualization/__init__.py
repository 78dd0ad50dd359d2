from .curves import plot_curves, read_scalars
from .reconstruction import draw_reconstruction

__all__ = ['draw_reconstruction', 'plot_curves', 'read_scalars']
