"""Semi-synthetic brains made from the ICBM152 template: anatomy, subjects and anomalies.

Everything here is numpy and scipy only, so that worker processes start quickly.
"""
