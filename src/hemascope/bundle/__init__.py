"""The artefact that is shipped and run: model.onnx, card.json and uncertainty.safetensors."""
