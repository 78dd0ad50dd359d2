"""Sphinx settings, and the API pages: one for each package of mmmap, from what it exports."""

import inspect
import pkgutil
from importlib import import_module
from pathlib import Path

import mmmap

project = 'mmmap'
author = 'mmmap contributors'
copyright = 'mmmap contributors'
release = mmmap.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.mathjax', 'sphinx.ext.viewcode']
myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 3
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'mmmap {release}'

autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
# What the base classes of mmengine and mmpretrain say belongs to their pages.
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# As fields of the class: as entries of their own they would clash with the members autodoc finds.
napoleon_use_ivar = True

API = Path(__file__).parent / 'api' / 'generated'


def exported(package: str) -> list[tuple[str, str]]:
    """Classes and functions in a package's ``__all__``: (kind, name), empty if it has none.

    Args:
        package (str): Import name of the package.
    """
    module = import_module(package)
    kinds = []
    for name in sorted(getattr(module, '__all__', [])):
        member = getattr(module, name)
        if inspect.isclass(member):
            kinds.append(('autoclass', name))
        elif inspect.isfunction(member):
            kinds.append(('autofunction', name))
    return kinds


def write_api_pages() -> None:
    """Write one page for each package of mmmap that exports something; deeper packages first claim their names."""
    API.mkdir(parents=True, exist_ok=True)
    packages = [info.name for info in pkgutil.walk_packages(mmmap.__path__, 'mmmap.') if info.ispkg]
    claimed, pages = set(), {}
    for package in sorted(packages, key=lambda name: (-name.count('.'), name)):
        module = import_module(package)
        members = [(kind, name) for kind, name in exported(package) if id(getattr(module, name)) not in claimed]
        claimed.update(id(getattr(module, name)) for _, name in members)
        if members:
            lines = [f'# {package}', '', (inspect.getdoc(module) or '').strip(), '', '```{eval-rst}']
            for kind, name in members:
                lines += [f'.. {kind}:: {package}.{name}', '   :members:' if kind == 'autoclass' else '', '']
            pages[f'{package}.md'] = '\n'.join([*lines, '```', ''])
    for page in API.glob('*.md'):
        if page.name not in pages:
            page.unlink()
    for name, text in pages.items():
        path = API / name
        # Untouched pages are not read again by Sphinx.
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


write_api_pages()
