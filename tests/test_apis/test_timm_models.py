"""Models of mmmap by timm's own function."""

import pytest
import torch

timm = pytest.importorskip('timm')


def test_timm_builds_our_models(tmp_path):
    import mmmap.apis.timm_models  # noqa: F401

    assert 'map_hybrid_tiny' in timm.list_models('map_hybrid*')
    model = timm.create_model('map_hybrid_tiny', num_classes=4, img_size=32).eval()
    x = torch.randn(1, 3, 32, 32)
    assert model(x).shape == (1, 4)
    assert timm.data.resolve_data_config({}, model=model)['input_size'] == (3, 32, 32)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    again = timm.create_model(
        'map_hybrid_tiny', num_classes=4, img_size=32, checkpoint_path=str(tmp_path / 'weights.pth')
    ).eval()
    torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)
    maps = timm.create_model('map_hybrid_tiny', features_only=True, img_size=32)(x)
    assert [tuple(m.shape) for m in maps] == [(1, 192, 2, 2)] * 4
    with pytest.raises(ValueError, match='no weights were published'):
        timm.create_model('map_hybrid_tiny', pretrained=True)
