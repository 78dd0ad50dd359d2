"""Names of configs and models, as mmengine's and mmpretrain's look-ups find them in a checkout."""

import cv2
import mmpretrain
import numpy as np
import pytest
from mmengine import hub
from mmpretrain import FeatureExtractor, ImageClassificationInferencer, inference_model

CLASSIFIER = 'map_hybrid-tiny-p16_8xb128-amp-coslr-100e_in1k'


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
    return str(path)


def test_the_hub_builds_a_model():
    model = hub.get_model('mmmap::map/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k.py')
    assert type(model).__name__ == 'MAP'


def test_mmpretrain_lists_and_builds_our_models_beside_its_own():
    names = mmpretrain.list_models('*map_hybrid*')
    assert CLASSIFIER in names and len(set(names)) == len(names)
    assert mmpretrain.list_models('resnet50*')
    model = mmpretrain.get_model(CLASSIFIER, head=dict(num_classes=7))
    assert type(model.backbone).__name__ == 'MAPHybrid' and model.head.num_classes == 7


def test_inferencers_of_mmpretrain(picture):
    model = mmpretrain.get_model(CLASSIFIER)
    by_path = ImageClassificationInferencer(model)(picture)[0]
    by_array = ImageClassificationInferencer(model)(cv2.imread(picture))[0]
    assert by_path['pred_scores'].shape == (1000,)
    np.testing.assert_array_equal(by_path['pred_scores'], by_array['pred_scores'])
    assert inference_model(model, picture)['pred_label'] == by_path['pred_label']
    (features,) = FeatureExtractor(model)(picture)
    assert features[0].shape == (192,)
