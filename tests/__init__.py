"""The tests. The package comes first: it lets AllenNLP be imported with today's libraries."""

import allennlp_parallel_predict  # noqa: F401
