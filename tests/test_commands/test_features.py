"""``mmmap features``: vectors of the frozen backbone with the names of the pictures."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmmap.apis import build_model, load_weights
from mmmap.apis.feature_files import FeatureFile
from mmmap.apis.prediction import features_of
from mmmap.commands import main
from mmmap.utils.errors import UserError


def test_features_are_those_of_the_model(classifier, pictures, tmp_path):
    out = tmp_path / 'f.npz'
    main(['features', *classifier, str(pictures), '-o', str(out), '--batch-size', '2'])
    file = np.load(out)
    assert list(file['files']) == ['a.png', 'b.jpg', 'd.png', 'sub/a.png', 'sub/c.png']
    cfg = Config.fromfile(classifier[0])
    model = load_weights(build_model(cfg), classifier[1])
    paths = [str(pictures / name) for name in file['files']]
    expected = [feature for _, feature in features_of(model, cfg, paths, 5, lambda *_: None)]
    np.testing.assert_allclose(file['features'], expected, atol=1e-5)
    assert file['features'].shape == (5, 16)
    batch = model.backbone(torch.zeros(1, 3, 32, 32))
    assert batch[0].shape == (1, 16)


def test_npy_with_names_beside_it(classifier, pictures, tmp_path):
    main(['features', *classifier, str(pictures / 'sub'), '-o', str(tmp_path / 'f.npy')])
    assert np.load(tmp_path / 'f.npy').shape == (2, 16)
    assert (tmp_path / 'f.txt').read_text().split() == ['a.png', 'c.png']


def test_parquet(tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    with FeatureFile(tmp_path / 'f.parquet') as file:
        file.add('a', np.arange(3.0))
        file.add('b', np.ones(3))
    table = parquet.read_table(tmp_path / 'f.parquet').to_pydict()
    assert table == dict(file=['a', 'b'], feature=[[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])


def test_an_interrupted_run_goes_on(tmp_path):
    path = tmp_path / 'f.npz'
    with pytest.raises(KeyboardInterrupt), FeatureFile(path) as file:
        file.add('a', np.zeros(2))
        file.add('b', np.ones(2))
        raise KeyboardInterrupt
    assert not path.exists()
    # Killed between a feature and its name.
    with open(tmp_path / 'f.npz.part', 'ab') as part:
        part.write(np.full(2, 9, np.float32).tobytes()[:6])
    with FeatureFile(path) as file:
        assert list(file.names) == ['a', 'b']
        file.add('c', np.full(2, 2))
    stored = np.load(path)
    assert stored['features'].tolist() == [[0, 0], [1, 1], [2, 2]] and list(stored['files']) == ['a', 'b', 'c']
    assert [item.name for item in tmp_path.iterdir()] == ['f.npz']


def test_parts_of_another_model_are_not_continued(classifier, pictures, tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt), FeatureFile(tmp_path / 'f.npz') as file:
        file.add('a.png', np.zeros(16))
        file.mark.write_text('{}')
        raise KeyboardInterrupt
    with pytest.raises(SystemExit):
        main(['features', *classifier, str(pictures), '-o', str(tmp_path / 'f.npz')])
    assert 'are of another config, checkpoint or options' in capsys.readouterr().err


def test_names_that_cannot_be(tmp_path):
    for name, words in (('f.txt', 'must end in one of'), ('there.npz', 'exists')):
        (tmp_path / 'there.npz').touch()
        with pytest.raises(UserError, match=words):
            FeatureFile(tmp_path / name)
    with pytest.raises(UserError, match='no picture gave a feature'), FeatureFile(tmp_path / 'empty.npz'):
        pass
