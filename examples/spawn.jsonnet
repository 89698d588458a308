// Workers as fresh processes that map one copy of the parameters; WORKERS comes from the environment:
//   WORKERS=4 allennlp parallel-predict ... --parallel-config spawn.jsonnet
{
  executor: {
    start_method: "spawn",
    num_workers: std.parseInt(std.extVar("WORKERS")),
  },
}
