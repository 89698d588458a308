"""The subcommands: from flags to objects. They hold no logic of their own."""
