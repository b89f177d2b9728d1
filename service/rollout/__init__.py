"""`sluice rollout`: a new version meets its users step by step, or not at all."""
