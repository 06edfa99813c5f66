"""The best that any estimator can do on the problems of the samples, and what classical estimators do."""
