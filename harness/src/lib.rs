//! From the matrix to the verdict: worlds, probes, convergence, statistics, metrics, report, gate.
