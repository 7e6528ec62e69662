"""Exchange of circuits with other tools: EAP-IG's JSON, which is also that of the MIB benchmark, and GraphML."""
