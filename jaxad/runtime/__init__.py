"""Devices, processes, and signals: what every command runs on.

- `parallel`: arrays and programs on several devices; `watchdog`: warnings about hangs.
- `processes`: several processes as one run; `locks`: processes that want the same file.
- `interrupts`: signals; `messages`, `streams`: output of the command line.
- `compilation_cache`, `huge_pages`, `cpu_tensorflow`: settings of JAX, glibc, and TensorFlow.
"""
