"""The cost of models, and what their tokens respond to."""

from .complexity import Complexity, count_complexity
from .token_response import area_of_half, effective_receptive_field, token_responses

__all__ = ['Complexity', 'area_of_half', 'count_complexity', 'effective_receptive_field', 'token_responses']
