"""Ray Data: `map_batches` with a class, whose instances are actors that load the predictor once."""

import os

import ray

from benchmarks.contestants import common


class Predict:
    def __init__(self, archive: str, predictor: str) -> None:
        self._predictor = common.load(archive, predictor)

    def __call__(self, batch):
        return {"text": common.predict(self._predictor, list(batch["text"]))}


def main() -> None:
    this = common.job()
    ray.init(
        address="local",
        num_cpus=this.workers,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
    )
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    lines = [line for batch in this.batches() for line in batch]
    blocks = max(1, len(lines) // this.batch_size)
    predictions = ray.data.from_items(
        [{"text": line} for line in lines], override_num_blocks=blocks
    ).map_batches(
        Predict,
        fn_constructor_args=(this.archive, this.predictor),
        batch_size=this.batch_size,
        concurrency=this.workers,
        num_cpus=1,
    )
    this.write([row["text"]] for row in predictions.iter_rows())
    ray.shutdown()


if __name__ == "__main__":
    main()
