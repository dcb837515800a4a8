"""`--mode=score`: scores, decisions and anomaly maps of files."""
