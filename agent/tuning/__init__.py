"""The compiler in the loop: what `optimize` does.

`main_job` is the loop, `compiler_loop` and `record` its state, `outcome` what it hands back.
`proposing` has the turns in which mappings come to the compiler, from the planner in the
`background`, from `permitting` and from the `guided` search; `turns` shares the time. Start at
`main_job`.
"""

__all__ = [
    "background",
    "compiler_loop",
    "guided",
    "main_job",
    "outcome",
    "permitting",
    "proposing",
    "record",
    "turns",
]
