"""
Lets AllenNLP 2.10.1, which is of 2022, run with the libraries of today.

Each module here is one shim: it repairs what one library changed since, when that library is
imported, and nothing where the version installed does not need it. Installing the shims imports no
library. It has to happen before AllenNLP is imported, and so the package does it first of all.

One more module, `lazy_imports`, repairs nothing: it spares imports that prediction never needs.

The environment variable `ALLENNLP_PARALLEL_PREDICT_COMPAT` names modules to leave out, separated by
commas, or is `none`, which leaves out all.
"""

import os

from allennlp_parallel_predict.compat import (
    adamw,
    add_special_tokens,
    cuda_device,
    fairscale_warnings,
    gojsonnet,
    import_hooks,
    lazy_imports,
    position_ids,
    s3_download,
    torchvision_stub,
)

VARIABLE = "ALLENNLP_PARALLEL_PREDICT_COMPAT"
SHIMS = {
    shim.__name__.rpartition(".")[2]: shim
    for shim in (
        adamw,
        add_special_tokens,
        cuda_device,
        fairscale_warnings,
        gojsonnet,
        position_ids,
        s3_download,
        torchvision_stub,
    )
}
_LAZY_IMPORTS = lazy_imports.__name__.rpartition(".")[2]


def install() -> None:
    """
    Installs the shims that the environment does not leave out; what is installed already stays.

    # Raises

    `ValueError`
        If the environment variable names a shim that does not exist.
    """
    left_out = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    unknown = left_out - {*SHIMS, _LAZY_IMPORTS, "none"}
    if unknown:
        raise ValueError(
            f"{VARIABLE} names {', '.join(sorted(unknown))}; it can name "
            f"{', '.join([*SHIMS, _LAZY_IMPORTS])} to leave them out, or be none"
        )
    for name, shim in SHIMS.items():
        if name not in left_out and "none" not in left_out:
            for module, hook in shim.HOOKS.items():
                import_hooks.register(module, hook)
    if not left_out & {_LAZY_IMPORTS, "none"}:
        lazy_imports.install()
