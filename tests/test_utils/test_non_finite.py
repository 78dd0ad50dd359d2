import pytest
import torch

from mmmap.utils.non_finite import first_non_finite


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf')])
def test_the_first_in_order_is_named(bad):
    tensors = {
        'good': torch.ones(3),
        'numbers': torch.tensor([1, 2]),
        'text': 'nan',
        'b': torch.tensor([1.0, bad], dtype=torch.bfloat16),
        'c': torch.tensor(bad),
    }
    assert first_non_finite(tensors) == 'b'
    assert first_non_finite(tensors.items()) == 'b'


def test_finite_values_and_nothing_at_all_pass():
    assert first_non_finite({'a': torch.tensor(1e38), 'b': torch.empty(0), 'c': torch.tensor([True])}) is None
    assert first_non_finite({}) is None
