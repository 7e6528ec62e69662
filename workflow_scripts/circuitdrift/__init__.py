"""CircuitDrift: fine-tune a language model, extract its circuit at every checkpoint, measure how the circuit drifts."""
