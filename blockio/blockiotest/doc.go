// Package blockiotest has a conformance suite for each interface of package
// blockio, and a source in memory to build lines for tests on. Whoever
// implements one of the interfaces calls its suite.
package blockiotest
