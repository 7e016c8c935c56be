"""The contract: what every driver must answer, one module for each capability."""
