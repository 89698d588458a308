"""
Lets AllenNLP 2.10.1, which is of 2022, run with the libraries of today.

Each module here is one shim: it repairs what one library changed since, when that library is
imported, and nothing where the version installed does not need it. Installing the shims imports no
library. It has to happen before AllenNLP is imported, and so the package does it first of all.

The environment variable `ALLENNLP_PARALLEL_PREDICT_COMPAT` names shims to leave out, separated by
commas, or is `none`, which leaves out all.
"""

import os

from allennlp_parallel_predict.compat import (
    adamw,
    add_special_tokens,
    fairscale_warnings,
    gojsonnet,
    import_hooks,
    position_ids,
    torchvision_stub,
)

VARIABLE = "ALLENNLP_PARALLEL_PREDICT_COMPAT"
SHIMS = {
    shim.__name__.rpartition(".")[2]: shim
    for shim in (
        adamw,
        add_special_tokens,
        fairscale_warnings,
        gojsonnet,
        position_ids,
        torchvision_stub,
    )
}


def install() -> None:
    """
    Installs the shims that the environment does not leave out; what is installed already stays.

    # Raises

    `ValueError`
        If the environment variable names a shim that does not exist.
    """
    left_out = {name.strip() for name in os.environ.get(VARIABLE, "").split(",")} - {""}
    unknown = left_out - set(SHIMS) - {"none"}
    if unknown:
        raise ValueError(
            f"{VARIABLE} names {', '.join(sorted(unknown))}; it can name "
            f"{', '.join(SHIMS)} to leave them out, or be none"
        )
    for name, shim in SHIMS.items():
        if name not in left_out and "none" not in left_out:
            for module, hook in shim.HOOKS.items():
                import_hooks.register(module, hook)
