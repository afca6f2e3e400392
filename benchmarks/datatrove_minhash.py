"""datatrove's MinHash over a JSONL file of documents, in an environment of its own: started by `benchmarks.duplicates`.

`PYTHON benchmarks/datatrove_minhash.py documents.jsonl` prints one JSON object: CPU seconds and the pairs it joins. It
imports nothing of ours. Fastest setting: words cut by `str.split` instead of spaCy, 32-bit xxhash, all in one process.
"""

import json
import struct
import sys
import tempfile
import time
from pathlib import Path


class Split:
    """Cuts words at white space: the cheapest tokenizer there is."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()


def main(path: str) -> None:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.logging import logger

    logger.remove()
    minhash.load_word_tokenizer = lambda language: Split()
    with open(path, encoding="utf-8") as file:
        documents = [Document(text=json.loads(line), id=str(number)) for number, line in enumerate(file)]
    config = minhash.MinhashConfig(hash_config=HashConfig(precision=32, hash_fc="xxhash"))
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        minhash.MinhashDedupSignature(f"{folder}/signatures", config).run(documents)
        buckets = minhash.MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
        for bucket in range(config.num_buckets):
            buckets.run(None, bucket, config.num_buckets)
        minhash.MinhashDedupCluster(f"{folder}/buckets", f"{folder}/clusters", config=config).run(None, 0, 1)
        spent = time.process_time() - began
        pairs = set()
        for file in Path(folder, "buckets").rglob("*.dups"):
            pairs.update((a, b) for _, a, _, b in struct.iter_unpack("<4I", file.read_bytes()))
    print(json.dumps({"seconds": spent, "pairs": sorted(pairs)}))


if __name__ == "__main__":
    main(sys.argv[1])
