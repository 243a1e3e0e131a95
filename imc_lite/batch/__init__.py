"""Many cases in, one row each out, in order; an interrupted run goes on where it stopped.

- `run`: from a file of cases to a file of answers
- `cases`: the input; `rows`: a case; `answering`: the row that answers it
- `settings`: what answers; `output`: what is there
- `parquet`: Parquet in and out
- `ray`: on many machines
"""
