"""Images → Predictions, and where in an image a Prediction comes from."""
