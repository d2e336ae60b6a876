"""What must keep holding, in numbers that the suite has no time for: `python -m tests.soak`, or `make soak`.

Each kind is one function of a `Random`, called very many times, each time with another one: whatever it raises is a
failure, and its number repeats it. The suite runs some of each kind (`tests/test_soak.py`).
"""
