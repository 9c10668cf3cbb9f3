"""Image arithmetic that several stages share: filters, morphology, connected components, comparison of two pictures."""
