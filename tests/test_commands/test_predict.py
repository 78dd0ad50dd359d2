"""``mmmap predict``: classes of pictures, from files and folders, with what cannot be read left out and named."""

import csv
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer

from mmmap.apis.prediction import find_pictures
from mmmap.commands import main


def rows(path):
    with open(path / 'predictions.csv', newline='') as file:
        return list(csv.reader(file))


def test_the_scores_are_those_of_the_inferencer(classifier, pictures, tmp_path, capsys):
    main(['predict', *classifier, str(pictures), '-o', str(tmp_path / 'out'), '--top', '2', '--batch-size', '2'])
    header, *table = rows(tmp_path / 'out')
    assert header == ['file', 'class 1', 'score 1', 'class 2', 'score 2']
    assert sorted(row[0] for row in table) == ['a.png', 'b.jpg', 'd.png', 'sub/a.png', 'sub/c.png']
    config = Config.fromfile(classifier[0])
    inferencer = ImageClassificationInferencer(config, pretrained=classifier[1])
    for name, best, score, _, second in table:
        expected = inferencer(str(pictures / name))[0]
        assert best == expected['pred_class']
        assert float(score) == pytest.approx(expected['pred_score'], abs=1e-3)
        assert float(second) <= float(score)
    assert '5 pictures' in capsys.readouterr().out


def test_a_second_start_goes_on(classifier, pictures, tmp_path, capsys):
    out = tmp_path / 'out'
    main(['predict', *classifier, str(pictures / 'sub'), '-o', str(out)])
    before = rows(out)
    (pictures / 'sub/e.png').write_bytes((pictures / 'a.png').read_bytes())
    main(['predict', *classifier, str(pictures / 'sub'), '-o', str(out)])
    after = rows(out)
    assert after[:-1] == before and after[-1][0] == 'e.png'


def test_results_of_another_model_are_not_continued(classifier, pictures, tmp_path, capsys):
    out = tmp_path / 'out'
    main(['predict', *classifier, str(pictures / 'sub'), '-o', str(out)])
    before = rows(out)
    checkpoint = torch.load(classifier[1])
    checkpoint['state_dict']['head.fc.bias'] += 5
    torch.save(checkpoint, classifier[1])
    for more in ([], ['--top', '1']):
        with pytest.raises(SystemExit):
            main(['predict', *classifier, str(pictures), '-o', str(out), *more])
        assert 'are of another config, checkpoint or options: name another --out' in capsys.readouterr().err
    assert rows(out) == before


def test_names_of_two_folders_stay_below_the_output(pictures):
    found = find_pictures([str(pictures), str(pictures / 'sub')])
    assert find_pictures([str(pictures / 'a.png'), str(pictures / 'sub/a.png')])[0][1] == str(pictures / 'a.png')[1:]
    assert len({name for _, name in found}) == len(found) and not any(name.startswith('/') for _, name in found)


def test_a_broken_picture_is_left_out_and_named(classifier, pictures, tmp_path, capsys):
    whole = (pictures / 'b.jpg').read_bytes()
    (pictures / 'b.jpg').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit) as stop:
        main(['predict', *classifier, str(pictures), '-o', str(tmp_path / 'out')])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert 'left out: broken image' in captured.out + captured.err
    assert captured.err.strip().splitlines()[-1].endswith('1 of 5 pictures could not be used, first '
                                                          f'{pictures / "b.jpg"}')  # fmt: skip
    assert len(rows(tmp_path / 'out')) == 5


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['missing'], 'missing: there is no such file or folder'),
        (['.'], 'no pictures in .'),
        (['PICTURES', '--top', '0'], '--top 0'),
    ],
)
def test_inputs_that_are_none(classifier, pictures, tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    with pytest.raises(SystemExit) as stop:
        main(['predict', *classifier, *(str(pictures) if part == 'PICTURES' else part for part in arguments)])
    assert stop.value.code == 1
    assert words in capsys.readouterr().err


def test_a_config_without_a_test(classifier, pictures, tmp_path, capsys):
    config = tmp_path / 'map.py'
    config.write_text(Path(classifier[0]).read_text().replace('test_dataloader', 'other_dataloader'))
    with pytest.raises(SystemExit):
        main(['predict', str(config), classifier[1], str(pictures), '-o', str(tmp_path / 'out')])
    assert 'has no test_dataloader with a pipeline' in capsys.readouterr().err


def test_a_detector_draws(tmp_path, pictures, monkeypatch):
    pytest.importorskip('mmdet')
    calls = []
    monkeypatch.setattr(
        'mmmap.apis.prediction.dense_predictor', lambda *given: lambda path, out: calls.append((path, out))
    )
    monkeypatch.setattr('mmmap.engine.config_parts.dense_kind', lambda cfg: 'detector')
    config = tmp_path / 'detector.py'
    config.write_text("model = dict(type='FasterRCNN')\n")
    out = tmp_path / 'out'
    (out / 'vis').mkdir(parents=True)
    (out / 'vis/a.jpg').touch()
    torch.save({}, tmp_path / 'x.pth')
    main(['predict', str(config), str(tmp_path / 'x.pth'), str(pictures), '-o', str(out)])
    assert {(path.replace(f'{pictures}/', ''), str(folder.relative_to(out))) for path, folder in calls} == {
        ('b.jpg', '.'), ('d.png', '.'), ('sub/a.png', 'sub'), ('sub/c.png', 'sub')
    }  # fmt: skip
