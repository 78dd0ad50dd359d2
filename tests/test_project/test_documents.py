"""What README and documentation name must exist, and what they count must be so."""

import re
from pathlib import Path

import pytest
import yaml

from mmmap.models import MAPHybrid
from mmmap.models.backbones.map_hybrid import ARCHS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'examples/README.md', *(ROOT / 'docs/en').glob('*.md')]
)
PAGES += sorted((ROOT / 'docs/en').glob('benchmarks/*.md'))
PATH = re.compile(r'\b(?:tools|configs|examples|requirements|docs|tests)/[\w./-]*\w')


def ids(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize('page', PAGES, ids=ids)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=ids)
def test_named_files_exist(page):
    missing = {name for name in PATH.findall(page.read_text()) if not (ROOT / name).exists()}
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=ids)
def test_named_make_targets_exist(page):
    targets = set(re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.M))
    named = set(re.findall(r'(?:^|`)make ([a-z]+)\b(?!\.)', page.read_text(), re.M))
    assert named <= targets, named - targets


def readme_archs():
    rows = re.findall(
        r'^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) M \|$', (ROOT / 'README.md').read_text(), re.M
    )
    return {
        name: (int(width), int(mamba), int(transformer), float(count))
        for name, width, mamba, transformer, count in rows
    }


def test_readme_lists_every_arch():
    listed = {name: row[:3] for name, row in readme_archs().items()}
    assert listed == {k: (v['embed_dim'], v['layout'].count('M'), v['layout'].count('T')) for k, v in ARCHS.items()}


@pytest.mark.parametrize('arch', list(ARCHS))
def test_readme_counts_parameters(arch):
    # Few blocks are enough: the count is linear in the number of blocks of either kind.
    def count(layout):
        model = MAPHybrid(dict(ARCHS[arch], layout=layout), out_type='raw')
        return sum(p.numel() for p in model.parameters())

    both, two_mamba, two_transformer = count('MT'), count('MMT'), count('MTT')
    layout = ARCHS[arch]['layout']
    total = both + (layout.count('M') - 1) * (two_mamba - both) + (layout.count('T') - 1) * (two_transformer - both)
    assert readme_archs()[arch][3] == pytest.approx(total / 1e6, abs=0.05)


def test_model_index_names_files_that_exist():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for name in index['Import']:
        metafile = yaml.safe_load((ROOT / name).read_text())
        collections = {collection['Name'] for collection in metafile['Collections']}
        for collection in metafile['Collections']:
            assert (ROOT / collection['README']).is_file(), collection['README']
        for model in metafile['Models']:
            assert (ROOT / model['Config']).is_file(), model['Config']
            assert model['In Collection'] in collections, model['Name']
