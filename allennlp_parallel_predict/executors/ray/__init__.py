"""Workers on a Ray cluster. Nothing outside this folder imports it, except by its name."""
