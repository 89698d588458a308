"""The subcommands: from flags to objects. They hold no logic of their own."""

# First, as it has the package's subcommands imported in turn, whichever of them is wanted here.
import allennlp.commands  # noqa: F401
