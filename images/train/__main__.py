"""`python -m images.train JOB.json`: plans, trains or merges, and writes the result, or why there is none."""

import sys

from images.job_process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "images.train"))
