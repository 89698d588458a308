"""Where the time goes, as the parent reports it: a text, a JSON file, a timeline, a diagnosis."""
