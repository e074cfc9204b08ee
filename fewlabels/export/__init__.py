"""What a trained run becomes elsewhere: an ONNX file, a folder for the Hugging Face Hub, tasks for Label Studio."""
