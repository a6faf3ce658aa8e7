"""The front of accuracy over cost: one model fitted to many budgets on many targets, and what that shows."""
