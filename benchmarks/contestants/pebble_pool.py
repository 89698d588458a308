"""pebble's `ProcessPool` with an initializer."""

from pebble import ProcessPool

from benchmarks.contestants.common import initialize, job, predict_initialized


def main() -> None:
    this = job()
    with ProcessPool(
        max_workers=this.workers, initializer=initialize, initargs=[this.archive, this.predictor]
    ) as pool:
        this.write(pool.map(predict_initialized, this.batches()).result())


if __name__ == "__main__":
    main()
