"""Files of runs.

- `workdir`: the folder of a run, atomic writes, and the lock.
- `checkpoint`: checkpoints; `array_digests`: how their damage is found.
- `io_errors`: errors of the libraries that write files.
- `paths`, `home`: paths that users write, and their home and cache folders.
- `locations`: the path on this machine of what users name, also by a URL: `working_copies` of
  folders in a bucket, with a lock (`lease`), and `data_copies` of data. `buckets` has the requests.
"""
