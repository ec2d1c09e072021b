"""The thing that is shipped and run: model.onnx and card.json, and what classifies with them."""
