"""The paper's tables and figures, and whether its claims hold."""
