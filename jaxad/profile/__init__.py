"""Profiles of training updates: `--mode=profile`.

- `profiling`: the measurement; `table`: its text.
- `program_costs`, `time_shares`: costs of compiled programs, and shares of the time in a trace.
"""
