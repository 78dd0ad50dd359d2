"""Package metadata, and the native CPU kernels as an optional extension."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
CSRC = Path('mmmap', 'ops', 'csrc')


def read_version() -> str:
    """The version from mmmap/version.py, read without importing the package."""
    scope: dict = {}
    exec((ROOT / 'mmmap' / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_requirements(name: str) -> list[str]:
    """The requirements of ``requirements/<name>.txt`` and of those it includes; a missing file is an error."""
    found = []
    for line in (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines():
        line = line.split(' #')[0].strip()
        if line.startswith(('-r ', '--requirement ')):
            found += read_requirements(Path(line.split(maxsplit=1)[1]).stem)
        elif line and not line.startswith(('#', '-')):
            found.append(line)
    return found


def native_extension() -> dict:
    """The setup() arguments that build the native kernels; empty, with one line that says why, where they cannot be."""
    if os.environ.get('MMMAP_NO_NATIVE', '0') not in ('', '0'):
        print('mmmap: installing without the native CPU kernels (MMMAP_NO_NATIVE is set)', file=sys.stderr)
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        print(
            'mmmap: installing without the native CPU kernels: torch cannot be imported while building '
            f'({error}); `pip install --no-build-isolation -e .` builds them',
            file=sys.stderr,
        )
        return {}

    class OptionalBuildExtension(BuildExtension):
        """A build that fails leaves an installation without the native kernels, and says so in one line."""

        def run(self) -> None:
            try:
                super().run()
            except (Exception, SystemExit) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.extensions = []
                print(f'mmmap: installing without the native CPU kernels, the build failed: {reason}', file=sys.stderr)

    # -fopenmp makes at::parallel_for parallel. No -march: the kernel files name their own instruction sets.
    flags = ['-O3', '-g0', '-fno-math-errno', '-fno-trapping-math', '-ffp-contract=fast']
    openmp = [] if sys.platform == 'darwin' else ['-fopenmp']
    extension = CppExtension(
        'mmmap.ops._native',
        sources=sorted(str(path.relative_to(ROOT)) for path in (ROOT / CSRC).glob('*.cpp')),
        depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / CSRC).glob('*.h')),
        extra_compile_args={'cxx': flags + openmp},
        extra_link_args=openmp,
    )
    return {'ext_modules': [extension], 'cmdclass': {'build_ext': OptionalBuildExtension}}


def read_description() -> str:
    """README.md with relative links as plain text, since a package page has no files beside it."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    return re.sub(r'\[([^\]]+)\]\((?!https?:)[^)]+\)', r'\1', text)


def main() -> None:
    """Run setup."""
    extras = {name: read_requirements(name) for name in ('optional', 'gpu', 'tests', 'docs', 'demo')}
    extras['all'] = extras['optional']
    setup(
        name='mmmap',
        version=read_version(),
        description='Hybrid Mamba-Transformer vision backbones and their Masked Autoregressive Pretraining (MAP)',
        long_description=read_description(),
        long_description_content_type='text/markdown',
        author='mmmap contributors',
        url='https://arxiv.org/abs/2410.00871',
        keywords='mamba transformer hybrid backbone pretraining masked-autoregressive point-cloud openmmlab',
        classifiers=[
            'Development Status :: 4 - Beta',
            'Intended Audience :: Science/Research',
            'Operating System :: POSIX',
            'Programming Language :: C++',
            'Programming Language :: Python :: 3',
            'Programming Language :: Python :: 3.10',
            'Programming Language :: Python :: 3.11',
            'Programming Language :: Python :: 3.12',
            'Topic :: Scientific/Engineering :: Artificial Intelligence',
            'Topic :: Scientific/Engineering :: Image Recognition',
            'Typing :: Typed',
        ],
        license='Apache-2.0',
        packages=find_packages(include=['mmmap', 'mmmap.*']),
        # mmmap/.mim links configs and tools into the package, where mmengine and mim look for them.
        package_data={'mmmap': ['py.typed', '.mim/**/*'], 'mmmap.ops': ['csrc/*.cpp', 'csrc/*.h']},
        python_requires='>=3.10',
        install_requires=read_requirements('runtime'),
        extras_require=extras,
        entry_points={'console_scripts': ['mmmap = mmmap.commands:main']},
        zip_safe=False,
        **native_extension(),
    )


if __name__ == '__main__':
    main()
