"""Exchange of circuits with other tools: EAP-IG's JSON, which the MIB benchmark reads too, and GraphML."""
