"""The artefact that is shipped and run: model.onnx and card.json."""
