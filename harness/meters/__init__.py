"""The only clock, the only memory gauges, and what is known about the machine."""
