"""A predictor that keeps what was called, for the tests of the worker."""

import json
from typing import Any, Dict, List, Tuple

import torch
from allennlp.data import Instance
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchResult, WorkerOptions
from allennlp_parallel_predict.worker.worker import Worker


class RecordingPredictor(Predictor):
    """Keeps what was called, fails where its input says so, and needs no model."""

    def __init__(self) -> None:
        self._model: Any = torch.nn.Linear(1, 1)
        self._dataset_reader: Any = None
        self.calls: List[str] = []

    def load_line(self, line: str) -> Dict[str, Any]:
        self.calls.append(f"load {line}")
        loaded: Dict[str, Any] = json.loads(line)
        return loaded

    def predict_json(self, inputs: Dict[str, Any]) -> Dict[str, Any]:
        return self._predict([inputs])[0]

    def predict_batch_json(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        return self._predict(inputs)

    def predict_instance(self, instance: Instance) -> Dict[str, Any]:
        return self.predict_json(getattr(instance["it"], "metadata"))

    def _predict(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        self.calls.append("predict " + ",".join(str(i["n"]) for i in inputs))
        for i in inputs:
            if i.get("fails") == "predict" or i.pop("once", None) and len(inputs) > 1:
                raise ValueError(f"cannot take {i['n']}")
            if len(inputs) > i.get("fits", 100):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            if "prints" in i:
                print(i["prints"])
        return [{**i, "done": True} for i in inputs]

    def dump_line(self, outputs: Dict[str, Any]) -> str:
        self.calls.append(f"dump {outputs['n']}")
        if outputs.get("fails") == "dump":
            raise KeyError("dump")
        return f"{outputs['n']}\n"


def run(lines: Any, **options: Any) -> Tuple[BatchResult, List[str]]:
    predictor = RecordingPredictor()
    lines = [json.dumps(x) if isinstance(x, dict) else x for x in lines]
    batch = Batch(7, BatchKind.LINES, lines, range(len(lines)), range(1, len(lines) + 1))
    return Worker(predictor, WorkerOptions(**options)).predict(batch), predictor.calls
