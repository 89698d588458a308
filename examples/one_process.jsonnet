// No pool: everything in one process, as `allennlp predict` does, for debugging and comparison.
{
  executor: "in_process",
}
