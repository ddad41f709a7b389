"""Problems that are no plain bandit, each turned into ordinary evidence for the ordinary estimators."""
