"""Models by name: their numbers are those of the configs, and they survive every format."""

import json

import pytest
import torch
from torch.testing import assert_close

import mmmap
from mmmap.apis.create_model import FeatureModel
from mmmap.apis.image_model import ImageModel
from mmmap.registry import MODELS
from mmmap.utils.errors import UserError

ARCH = dict(embed_dim=32, layout='MMT', num_heads=2, num_registers=4)
SMALL = dict(arch=ARCH, num_classes=3, img_size=32, patch_size=8)


def small(**options):
    torch.manual_seed(0)
    return ImageModel(**{**SMALL, **options}).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_names_and_unknown_arguments():
    assert mmmap.list_models('*_t*') == ['map_hybrid_tiny']
    with pytest.raises(ValueError, match=r"'map_hybrid_tine' is unknown: choose from map_hybrid_tiny"):
        mmmap.create_model('map_hybrid_tine')
    with pytest.raises(TypeError, match='num_clases'):
        mmmap.create_model('map_hybrid_tiny', num_clases=3)
    with pytest.raises(ValueError, match='features_only'):
        mmmap.create_model('map_hybrid_tiny', out_indices=(1,))


@pytest.mark.parametrize('pool', ['avg', 'registers'])
@pytest.mark.parametrize('serialization', ['row', 'column'])
def test_the_numbers_are_those_of_the_classifier(pool, serialization, images, tmp_path):
    model = small(global_pool=pool, register_reduction=2 if pool == 'registers' else 1,
                  backbone_options=dict(serialization=serialization))  # fmt: skip
    model.save_checkpoint(tmp_path / 'a.pth')
    classifier = MODELS.build(
        dict(
            type='HybridClassifier',
            backbone=dict(
                type='MAPHybrid', arch=ARCH, img_size=32, patch_size=8, serialization=serialization,
                out_type='avg_featmap' if pool == 'avg' else 'registers',
            ),
            neck=None if pool == 'avg' else dict(type='RegisterNeck', reduction=2),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=3),
        )
    ).eval()  # fmt: skip
    classifier.load_state_dict(torch.load(tmp_path / 'a.pth')['state_dict'])
    with torch.no_grad():
        expected = classifier.head(classifier.extract_feat(images))
        assert_close(model(images), expected, rtol=0, atol=1e-6)


def test_tokens_registers_and_maps_are_in_order(images):
    model = small(global_pool='registers', backbone_options=dict(serialization='column'))
    with torch.no_grad():
        tokens, maps = model.forward_intermediates(images, indices=[0, -1])
        registers, patches = tokens[:, :4], tokens[:, 4:]
        assert_close(registers, model.backbone(images)[0], rtol=0, atol=0)
        assert_close(maps[1], patches.transpose(1, 2).unflatten(2, (4, 4)), rtol=0, atol=0)
        assert_close(maps[1], model.backbone.feature_maps(images)[0], rtol=0, atol=0)
        rows = model.forward_intermediates(images, indices=2, output_fmt='NLC', return_prefix_tokens=True,
                                           intermediates_only=True)  # fmt: skip
        assert [part.shape for part in rows[0]] == [(2, 16, 32), (2, 4, 32)] and len(rows) == 2
        assert_close(rows[1][0], patches, rtol=0, atol=0)
    with pytest.raises(ValueError, match='blocks 0 to 2'):
        model.forward_intermediates(images, indices=[3])


def test_pretrained_folder(images, tmp_path):
    model = small(classes=['a', 'b', 'c'])
    model.save_pretrained(tmp_path / 'saved')
    assert {path.name for path in (tmp_path / 'saved').iterdir()} >= {'config.json', 'model.safetensors'}
    loaded = ImageModel.from_pretrained(tmp_path / 'saved').eval()
    assert loaded.classes == ('a', 'b', 'c')
    assert_close(loaded(images), model(images), rtol=0, atol=0)


def test_pretrained_by_name(tmp_path):
    first = mmmap.create_model('map_hybrid_tiny', num_classes=3, img_size=32)
    first.save_pretrained(tmp_path / 'saved')
    first.save_checkpoint(tmp_path / 'a.pth')
    x = torch.randn(1, 3, 32, 32)
    first.eval()
    for weights in ('saved', 'a.pth', 'saved/model.safetensors'):
        options = {} if weights == 'saved' else dict(num_classes=3, img_size=32)
        again = mmmap.create_model('map_hybrid_tiny', pretrained=tmp_path / weights, **options)
        assert_close(again(x), first(x), rtol=0, atol=0)
    # Another head and another grid.
    other = mmmap.create_model('map_hybrid_tiny', pretrained=tmp_path / 'saved', num_classes=5, img_size=48)
    assert other(torch.randn(1, 3, 48, 48)).shape == (1, 5)
    assert_close(other.backbone.patch_embed.weight, first.backbone.patch_embed.weight)
    maps = mmmap.create_model('map_hybrid_tiny', pretrained=tmp_path / 'saved', features_only=True)
    assert isinstance(maps, FeatureModel) and [tuple(m.shape) for m in maps(x)] == [(1, 192, 2, 2)] * 4
    assert maps.feature_info[0]['reduction'] == 16
    with pytest.raises(UserError, match='holds a map_hybrid_tiny, not a map_hybrid_small'):
        mmmap.create_model('map_hybrid_small', pretrained=tmp_path / 'saved')
    with pytest.raises(ValueError, match='another arch, tiny'):
        mmmap.create_model('map_hybrid_small', pretrained=tmp_path / 'a.pth')


def test_weights_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match='no such file or folder'):
        mmmap.create_model('map_hybrid_tiny', pretrained='missing.pth')
    with pytest.raises(UserError, match='name a file'):
        mmmap.create_model('map_hybrid_tiny', pretrained=True)
    (tmp_path / 'broken.safetensors').write_bytes(b'no weights')
    with pytest.raises(UserError, match=r'broken\.safetensors is damaged'):
        small().load_weights(tmp_path / 'broken.safetensors')
    torch.save(dict(state_dict={'head.fc.weight': torch.zeros(3, 32)}), tmp_path / 'head.pth')
    with pytest.raises(UserError, match='weights of the backbone are not in the file, backbone'):
        small().load_weights(tmp_path / 'head.pth')
    small().save_pretrained(tmp_path / 'saved')
    (tmp_path / 'saved/config.json').write_text(json.dumps(dict(model_type='other')))
    with pytest.raises(UserError, match='not that of a model of mmmap'):
        mmmap.create_model('map_hybrid_tiny', pretrained=tmp_path / 'saved')


def test_the_classifier_can_be_replaced(images):
    model = small(classes=['a', 'b', 'c'])
    before = model.forward_features(images)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7) and model.get_classifier().out_features == 7 and model.classes is None
    model.reset_classifier(0)
    assert_close(model(images), before.mean(dim=1))
    model.reset_classifier(0, '')
    assert_close(model(images), before)
    with pytest.raises(ValueError, match='needs pooled features'):
        model.reset_classifier(2, '')
    with pytest.raises(ValueError, match='registers are chosen when'):
        model.reset_classifier(2, 'registers')


def test_it_learns():
    torch.manual_seed(0)
    model = ImageModel(**SMALL)
    x, y = torch.randn(12, 3, 32, 32), torch.arange(12) % 3
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
