"""One tab alone, for who works on it: python -m pages._kit.preview nanogpt"""

import sys

if __name__ == "__main__":
    from app import Chapter, assemble, launch

    chapters = [Chapter("Preview", tuple(sys.argv[1:]))]
    launch(assemble(chapters), chapters)
