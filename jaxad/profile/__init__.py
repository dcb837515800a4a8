"""Profiles of training updates, and the costs of compiled programs."""
