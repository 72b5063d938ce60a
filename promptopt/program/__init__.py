"""program: trees of predictors, what is tunable in them, and how they speak. It knows models only by ``lm.calls``."""
