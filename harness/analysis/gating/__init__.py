"""What a gate is made of: the window of nights, the cells of a rule, the numbers of a cell, what checks said."""
