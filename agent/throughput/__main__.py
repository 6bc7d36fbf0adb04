"""`python -m agent.throughput` runs the benchmark."""

from agent.throughput.benchmark import main

main()
