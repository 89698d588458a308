// For input that cannot be trusted: a failed line becomes a JSON object that says why, a batch that
// takes ten minutes is given up, and a run with more than 100 failures ends.
{
  executor: { batch_timeout: 600, max_retries: 1 },
  batching: { batch_size: 32 },
  on_error: "placeholder",
  max_errors: 100,
}
