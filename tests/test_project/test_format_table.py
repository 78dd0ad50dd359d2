"""The table of image formats in the documentation is what its script writes."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT, PAGE = ROOT / 'docs/en/write_format_table.py', ROOT / 'docs/en/data.md'


@pytest.fixture(scope='module')
def script():
    return runpy.run_path(str(SCRIPT))


def test_the_page_has_the_table_of_today(script):
    if not PAGE.exists() or script['BEGIN'] not in PAGE.read_text():
        pytest.skip('the page has no table')
    text = PAGE.read_text()
    if script['versions']() not in text:
        pytest.skip('the table is of other versions of OpenCV or Pillow')
    # A build of Pillow that lacks a format gives fewer rows.
    missing = [line for line in script['table']().splitlines() if line not in text.splitlines()]
    assert not missing, f'run python {SCRIPT.relative_to(ROOT)} {PAGE.relative_to(ROOT)}'


def test_a_page_is_updated_between_its_marks(script, tmp_path, monkeypatch, capsys):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n{script["BEGIN"]}\nold\n{script["END"]}\nafter\n')
    monkeypatch.setattr(sys, 'argv', [str(SCRIPT), str(page)])
    runpy.run_path(str(SCRIPT), run_name='__main__')
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n') and 'old' not in text
    for line in (
        '| PNG, 16-bit grey | read | read | none |',
        '| TIFF, float | refused | refused | black and white are not known |',
        '| WebP, EXIF orientation | read | read | OpenCV does not turn it |',
    ):
        assert line in text
    page.write_text('no marks')
    with pytest.raises(SystemExit):
        runpy.run_path(str(SCRIPT), run_name='__main__')
    assert 'error: the page has no marks' in capsys.readouterr().err
    assert page.read_text() == 'no marks'
