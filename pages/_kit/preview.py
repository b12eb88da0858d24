"""One tab alone, to work on it: python -m pages._kit.preview nanogpt (GRADIO_SERVER_PORT=7911 for another port)"""

import sys

if __name__ == "__main__":
    from app import assemble, launch
    from core.foundations.experiment import topics
    from pages._kit.syllabus import Chapter

    if not sys.argv[1:] or set(sys.argv[1:]) - set(topics()):
        sys.exit(f"usage: python -m pages._kit.preview TOPIC ...; topics are {', '.join(topics())}")
    chapters = [Chapter("Preview", "tabs to work on", tuple(sys.argv[1:]))]
    launch(assemble(chapters), chapters)
