"""`concurrent.futures.ProcessPoolExecutor` with an initializer that loads the predictor."""

from concurrent.futures import ProcessPoolExecutor

from benchmarks.contestants.common import initialize, job, predict_initialized


def main() -> None:
    this = job()
    with ProcessPoolExecutor(
        this.workers, initializer=initialize, initargs=(this.archive, this.predictor)
    ) as pool:
        this.write(pool.map(predict_initialized, this.batches()))


if __name__ == "__main__":
    main()
