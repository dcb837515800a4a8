"""Devices, processes and signals: what every program of jaxad runs on."""
