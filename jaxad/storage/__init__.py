"""Files of runs.

- `workdir`: the folder of a run, atomic writes, and the lock.
- `checkpoint`: checkpoints; `array_digests`: how their damage is found.
- `io_errors`: errors of the libraries that write files.
- `paths`, `home`: paths that users write, and their home and cache folders.
"""
