"""joblib with its default backend, loky; the predictor is loaded in a worker when first needed."""

from functools import lru_cache

from joblib import Parallel, delayed

from benchmarks.contestants import common

# joblib keeps its workers and gives each one thread, but it has no initializer.
load_once = lru_cache(common.load)


def predict(archive: str, predictor: str, lines: common.Batch):
    return common.predict(load_once(archive, predictor), lines)


def main() -> None:
    this = common.job()
    parallel = Parallel(n_jobs=this.workers, return_as="generator")
    tasks = (delayed(predict)(this.archive, this.predictor, batch) for batch in this.batches())
    this.write(parallel(tasks))


if __name__ == "__main__":
    # Functions of a script travel by value, and with them their cache: import them instead.
    from benchmarks.contestants import joblib_pool

    joblib_pool.main()
