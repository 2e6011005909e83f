"""The planner: graph + profile -> plan. Pure arithmetic, no clock, no network, no torch."""
