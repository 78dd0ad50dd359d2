"""``python -m mmmap`` is the command ``mmmap``."""

from .commands import main

if __name__ == '__main__':
    main()
