from .models import build_model, load_images, load_model, stored_model

__all__ = ['build_model', 'load_images', 'load_model', 'stored_model']
