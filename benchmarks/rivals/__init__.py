"""What `benchmarks.peers` runs on lab hosts: one module per way to punch, each in a virtual environment of its own."""
