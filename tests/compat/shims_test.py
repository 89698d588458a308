"""
Every shim, in processes that leave it out and that do not: what AllenNLP does fails without it.

A process is needed for each, as a shim is installed once, before anything is imported.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Tuple

import cached_path.version
import pytest
import torch
import transformers

from allennlp_parallel_predict import compat

BERT = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "vocab.txt").write_text("\\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
config = dict(model_type="bert", vocab_size=6, hidden_size=4, num_hidden_layers=1,
              num_attention_heads=1, intermediate_size=4, max_position_embeddings=8)
(folder / "config.json").write_text(json.dumps(config))
"""
ADAMW = "import allennlp.training.optimizers"
ADD_SPECIAL_TOKENS = (
    BERT
    + """
from allennlp.data.tokenizers import PretrainedTransformerTokenizer
tokens = PretrainedTransformerTokenizer(str(folder)).tokenize("a")
assert [token.text for token in tokens] == ["[CLS]", "a", "[SEP]"], tokens
"""
)
CUDA_DEVICE = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from allennlp.common.checks import ConfigurationError, check_for_gpu
try:
    check_for_gpu(3)
except ConfigurationError as error:
    assert "GPU" in str(error), error
"""
FAIRSCALE_WARNINGS = """
import warnings
warnings.filterwarnings("error", "`torch.cuda.amp", FutureWarning)
import allennlp.nn.parallel
"""
# Named explicitly: that is what a model of another version, or another model, would hold as well.
POSITION_IDS = (
    BERT
    + """
import torch
from allennlp.data import Vocabulary
from allennlp.models import Model
from allennlp.modules.token_embedders import PretrainedTransformerEmbedder
from transformers import BertConfig, BertModel
BertModel(BertConfig(**config)).save_pretrained(str(folder))

@Model.register("embedder")
class Embedder(Model):
    def __init__(self, vocab):
        super().__init__(vocab)
        self.embedder = PretrainedTransformerEmbedder(str(folder))

Vocabulary().save_to_files(str(folder / "vocabulary"))
weights = Embedder(None).state_dict()
weights["embedder.transformer_model.embeddings.position_ids"] = torch.arange(8).expand((1, -1))
torch.save(weights, str(folder / "best.th"))
from allennlp.common import Params
Model.load(Params({"model": {"type": "embedder"}}), str(folder))
weights["embedder.transformer_model.embeddings.other_ids"] = torch.arange(8)
torch.save(weights, str(folder / "best.th"))
try:
    Model.load(Params({"model": {"type": "embedder"}}), str(folder))
except RuntimeError as error:
    assert "other_ids" in str(error) and "position_ids" not in str(error), error
else:
    sys.exit("accepted what the model has no place for")
"""
)
S3_DOWNLOAD = """
import sys
from boto3.compat import is_append_mode
from cached_path.progress import BufferedWriterWithProgress
with open(sys.argv[1] + "/file", "wb") as file:
    assert not is_append_mode(BufferedWriterWithProgress(file, None, None))
"""
TORCHVISION_STUB = """
import sys
from pathlib import Path
package = Path(sys.argv[1]) / "torchvision"
package.mkdir(exist_ok=True)
(package / "__init__.py").write_text(
    "raise RuntimeError('operator torchvision::nms does not exist')"
)
sys.path.insert(0, sys.argv[1])
import allennlp.data
import allennlp.modules.vision
assert not [name for name in sys.modules if name.startswith("torchvision")]
"""
GOJSONNET = """
import json, sys
class NoJsonnet:
    def find_spec(self, name, path=None, target=None):
        if name == "_jsonnet":
            raise ModuleNotFoundError("No module named '_jsonnet'", name=name)
sys.meta_path.insert(0, NoJsonnet())
from allennlp.common import Params
path = sys.argv[1] + "/config.jsonnet"
with open(path, "w") as file:
    file.write("local two = 1 + 1; {two: two, name: std.extVar('HOME')}")
import os
assert Params.from_file(path).as_dict() == {"two": 2, "name": os.environ["HOME"]}
"""


def version(module: ModuleType) -> Tuple[int, ...]:
    text = getattr(module, "__version__", None) or module.VERSION
    return tuple(int(part) for part in text.split(".")[:2])


NEEDED = {
    "adamw": version(transformers) >= (4, 50),
    "add_special_tokens": version(transformers) >= (4, 44),
    "cuda_device": version(torch) >= (2, 0) and torch.version.cuda is None,
    "fairscale_warnings": version(torch) >= (2, 4),
    "gojsonnet": True,
    "position_ids": version(transformers) >= (4, 31),
    "s3_download": version(cached_path.version) < (1, 2),
    "torchvision_stub": True,
}


def start(code: str, folder: Path, left_out: str) -> subprocess.Popen:
    code = "from allennlp_parallel_predict import compat; compat.install()\n" + code
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        env=dict(os.environ, ALLENNLP_PARALLEL_PREDICT_COMPAT=left_out),
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


def finish(process: subprocess.Popen) -> Tuple[int, str]:
    stderr = process.communicate()[1]
    return process.returncode, stderr[-3000:]


def test_every_shim_is_tested() -> None:
    assert set(NEEDED) == set(compat.SHIMS)


@pytest.mark.parametrize("shim", NEEDED)
def test_is_needed_and_helps(shim: str, tmp_path: Path) -> None:
    if shim == "gojsonnet":
        pytest.importorskip("_gojsonnet", reason="installed on Linux on ARM only")
    code = globals()[shim.upper()]
    processes = [start(code, tmp_path / "helped", ""), start(code, tmp_path / "not", shim)]
    helped, left_out = map(finish, processes)
    assert helped[0] == 0, helped[1]
    assert bool(left_out[0]) == NEEDED[shim], left_out[1]


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    status, stderr = finish(start("", tmp_path, "adam"))
    assert status and "adam; it can name adamw" in stderr


def test_nothing_is_installed_on_request(tmp_path: Path) -> None:
    code = "assert set(compat.import_hooks._finder.hooks) == {'allennlp.commands'}"
    assert finish(start(code, tmp_path, "none"))[0] == 0
    assert finish(start(code, tmp_path, ""))[0] == 1
