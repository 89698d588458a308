"""Fewer operations for the same numbers. Entered at one point: `predictor.tune_predictor`."""
