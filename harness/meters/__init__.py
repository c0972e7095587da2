"""The only clock, the only gauges of memory, power and load, and what is known about the machine."""
