"""False alarms and power of the ways to decide an A/B test that is looked at again and again.

Run it with ``python -m benchmarks.experiments``.
"""

import argparse
import time

from llmops_assets.experiments.simulate import METHODS, Design, rejection_rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulated experiments per row")
    parser.add_argument("--users", type=int, default=2000, help="users of each arm at the end")
    parser.add_argument(
        "--expected", type=int, nargs="*", default=[400, 2000], help="N*: users of both arms at decision"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    print(f"{options.runs} runs a row, 4 ratings (1-5) a user, a look every 10 users an arm up to {options.users}")
    print("share of runs that end significant at .05: at any look (at the last look only)\n")
    print(f"| shift | N* | {' | '.join(METHODS)} | CPU-s |")
    print(f"|---|---|{'---|' * len(METHODS)}---|")
    for shift in (0.0, 0.1, 0.2):
        for expected in options.expected:
            started = time.process_time()
            design = Design(users=options.users, shift=shift)
            rates = rejection_rates(design, runs=options.runs, seed=options.seed, expected_n=expected)
            cells = " | ".join(f"{rates.peeking[m]:.1%} ({rates.once[m]:.1%})" for m in METHODS)
            print(f"| {shift} | {expected} | {cells} | {time.process_time() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
