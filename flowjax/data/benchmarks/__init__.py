"""The benchmarks that `--data` reads, one file each; found by their names.

A file says in its docstring where the benchmark comes from and how its folder looks, and gives a
`BENCHMARK` (see `flowjax.data.benchmark`).
"""
