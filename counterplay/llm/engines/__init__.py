"""Models that run here: texts and log-likelihoods, by whichever library runs them."""
