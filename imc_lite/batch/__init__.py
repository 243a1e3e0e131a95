"""Many cases in, one row each out, in order; an interrupted run goes on where it stopped.

- `run`: from a file of cases to a file of answers
- `parquet`: Parquet in and out
- `ray`: on many machines
"""
