"""The machine that a run trains on: devices, processes, memory and compilation."""
