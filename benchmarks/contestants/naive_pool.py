"""
The question's own code: a pool whose every task carries the predictor.

It is pickled, sent and unpickled once a chunk. Worse, the parent has used torch before it forks (it
has tried the predictor on a line, as anybody would), so the workers may wait for threads that they
do not have.
"""

import multiprocessing

from benchmarks.contestants.common import job, predict


def main() -> None:
    this = job()
    predictor = this.load(this.threads or None)
    chunks = list(this.batches())
    predict(predictor, chunks[0][:2])
    with multiprocessing.Pool(this.workers) as pool:
        this.write(pool.starmap(predict, [(predictor, chunk) for chunk in chunks], chunksize=1))


if __name__ == "__main__":
    main()
