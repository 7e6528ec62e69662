"""Sources of models, the manifest by which every stage knows a model, and loading."""
