// Package invariant holds the switch for checks that are too dear for a running
// broker: mangling released buffers, walking whole structures. The checks are
// compiled in with the build tag skeininvariants and cost nothing without it.
// It knows nothing of what is checked.
package invariant
