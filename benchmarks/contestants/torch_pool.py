"""
A pool of torch.multiprocessing with the model in shared memory, as PyTorch's notes on
multiprocessing recommend: `share_memory()`, a start method other than fork, one thread a process.
"""

import torch.multiprocessing

from benchmarks.contestants import common


def adopt(predictor) -> None:
    torch.set_num_threads(1)
    common._predictor = predictor


def main() -> None:
    this = common.job()
    predictor = this.load()
    if predictor._model is not None:
        predictor._model.share_memory()
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(this.workers, initializer=adopt, initargs=(predictor,)) as pool:
        this.write(pool.imap(common.predict_initialized, this.batches()))


if __name__ == "__main__":
    main()
