"""Files in, decisions and maps out: `--mode=score`."""
