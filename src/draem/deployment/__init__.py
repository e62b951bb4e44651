"""From a trained model to what runs on the line: export with its certificate, benchmark."""
