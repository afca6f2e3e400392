"""`python -m images.ask JOB.json`: asks a model that is trained already, writes the result, or why there is none."""

import sys

from images.job_process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "images.ask"))
