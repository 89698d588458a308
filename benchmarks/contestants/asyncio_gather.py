"""asyncio's `gather` around `predict_json`: concurrent, on one thread."""

import asyncio

from benchmarks.contestants.common import job


async def predict_line(predictor, line: str) -> str:
    return predictor.dump_line(predictor.predict_json(predictor.load_line(line)))


async def main() -> None:
    this = job()
    predictor = this.load()
    lines = [line for batch in this.batches() for line in batch]
    this.write([await asyncio.gather(*(predict_line(predictor, line) for line in lines))])


if __name__ == "__main__":
    asyncio.run(main())
