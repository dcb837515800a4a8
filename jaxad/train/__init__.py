"""Training and fitting of runs.

- `loop`: the training loop; `fit`: models that are fitted in one pass.
- `program`: compiled updates of one or several seeds; `step`: the update; `state`: what it changes.
- `optim`, `phases`: optimisers, and which networks each update trains.
- `metrics`, `outputs`, `writer`: means and validation losses, and the files that are written.
- `feature_cache`: features of frozen encoders.
"""
