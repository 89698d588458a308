"""The way of an input: sources, batching, and back into order, to sinks."""
