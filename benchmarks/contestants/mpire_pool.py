"""mpire's `WorkerPool`: the predictor in the workers' state, one CPU each."""

from mpire import WorkerPool

from benchmarks.contestants import common


def main() -> None:
    this = common.job()

    def start(state) -> None:
        state["predictor"] = this.load(threads=1)

    def predict(state, *lines: str):
        return common.predict(state["predictor"], list(lines))

    batches = list(this.batches())
    pinned = list(range(this.workers))
    with WorkerPool(n_jobs=this.workers, use_worker_state=True, cpu_ids=pinned) as pool:
        this.write(pool.imap(predict, batches, worker_init=start, chunk_size=1))


if __name__ == "__main__":
    main()
