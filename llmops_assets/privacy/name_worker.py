"""The process that `name_process` starts: it looks for names in what it is sent."""

import signal
import sys

import msgspec

from llmops_assets.privacy.name_process import read, write


def main() -> None:
    """Answer requests until there are none: what a parent that is gone will never ask is not waited for."""
    # Whoever interrupts the parent ends this one by that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # First what takes longest, and both halves of it: the model is read, and then made ready by the first word.
    from llmops_assets.privacy import names
    from llmops_assets.privacy.name_words import LOCK, gazetteer, kiwi, syllables

    with LOCK:
        kiwi().tokenize("가")
    gazetteer()
    syllables()
    while (request := read(sys.stdin.buffer)) is not None:
        sentences = msgspec.msgpack.decode(request, type=list[str])
        found = names.judged(sentences)
        answer = [[(span.start, span.end, span.score) for span in found[sentence]] for sentence in sentences]
        write(sys.stdout.buffer, msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    main()
