import json

import pytest


def write(path, counts, classes=('a', 'b')):
    path.write_text(json.dumps(dict(classes=classes, counts=counts)))
    return path


def test_counts_of_folds_are_summed(run_tool, tmp_path, capsys):
    first, second = write(tmp_path / '1.json', [[9, 1], [0, 0]]), write(tmp_path / '2.json', [[0, 0], [5, 5]])
    run_tool('analysis_tools/sum_confusions.py', first, second)
    lines = capsys.readouterr().out.splitlines()
    # 1.json: a 9 / 10, b 0 / 1. The sum: a 9 / 15, b 5 / 11.
    assert '1.json: mIoU 45.00, mAcc 90.00, OA 90.00' in lines[0]
    assert lines[-3].split() == ['a', '60.00', '90.00', '50.00']
    assert lines[-2].split() == ['b', '45.45', '50.00', '50.00']
    assert lines[-1].split() == ['mean', '52.73', '70.00', 'OA', '70.00']


def test_classes_are_matched_by_name(run_tool, tmp_path, capsys):
    # The counts of the test above; the first file lacks a class that is nowhere, the second has another order.
    first = write(tmp_path / '1.json', [[9, 1], [0, 0]])
    second = write(tmp_path / '2.json', [[5, 0, 5], [0, 0, 0], [0, 0, 0]], ('b', 'c', 'a'))
    run_tool('analysis_tools/sum_confusions.py', first, second)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].split() == ['b', '45.45', '50.00', '50.00']
    assert lines[-3].split() == ['c', 'nan', 'nan', '0.00']
    assert lines[-2].split() == ['a', '60.00', '90.00', '50.00']


@pytest.mark.parametrize(
    ('second', 'culprit'),
    [
        (lambda path: path, 'confusion counts not found: '),
        (lambda path: write(path, [[1, 2]]), 'has no confusion counts as SceneSegMetric'),
        (lambda path: write(path, [[1, 2], [3, 4]], ('a', 'c')), 'has other classes than'),
    ],
)
def test_what_is_wrong_is_named(run_tool, tmp_path, capsys, second, culprit):
    first = write(tmp_path / '1.json', [[9, 1], [0, 0]])
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/sum_confusions.py', first, second(tmp_path / '2.json'))
    line = capsys.readouterr().err.splitlines()[-1]
    assert '2.json' in line and culprit in line
