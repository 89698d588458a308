"""One run, from the first input to the last output."""
